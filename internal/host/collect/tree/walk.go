package tree

import (
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links one name may lead through: the kernel's
// MAXSYMLINKS.
const maxLinks = 40

// maxDepth is how deep a name may lead: each level holds a descriptor.
const maxDepth = 256

// walk resolves name below root as openat2 with RESOLVE_IN_ROOT does, for kernels
// before Linux 5.6 (RHEL 8 has 4.18): one component at a time, never following a
// link in the kernel. ".." returns to the descriptor it came from, so that nothing
// renamed meanwhile leads out. The result is an O_PATH descriptor.
func walk(root int, name string, nofollow bool) (int, error) {
	var stack []int // directories below root that the walk is in
	defer func() {
		for _, fd := range stack {
			unix.Close(fd)
		}
	}()
	cur := func() int {
		if len(stack) > 0 {
			return stack[len(stack)-1]
		}
		return root
	}
	todo := strings.Split(name, "/")
	links := 0
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if n := len(stack); n > 0 {
				unix.Close(stack[n-1])
				stack = stack[:n-1]
			}
			continue
		}
		fd, err := unix.Openat(cur(), part, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			unix.Close(fd)
			return -1, err
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			if nofollow && len(todo) == 0 {
				return fd, nil
			}
			if links++; links > maxLinks {
				unix.Close(fd)
				return -1, unix.ELOOP
			}
			buf := make([]byte, unix.PathMax)
			n, err := unix.Readlinkat(fd, "", buf)
			unix.Close(fd)
			if err != nil {
				return -1, err
			}
			target := string(buf[:n])
			if strings.HasPrefix(target, "/") {
				for _, fd := range stack {
					unix.Close(fd)
				}
				stack = stack[:0]
			}
			todo = append(strings.Split(target, "/"), todo...)
		case unix.S_IFDIR:
			stack = append(stack, fd)
			if len(stack) > maxDepth {
				return -1, unix.ENAMETOOLONG
			}
		default:
			if len(todo) > 0 {
				unix.Close(fd)
				return -1, unix.ENOTDIR
			}
			return fd, nil
		}
	}
	return unix.Openat(cur(), ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}
