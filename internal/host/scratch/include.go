package scratch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds on what a script includes.
const (
	maxFiles   = 4096
	maxInclude = 256 << 20 // bytes, together
)

// file is a copy for the namespace.
type file struct {
	path    string
	text    []byte
	refused string // it is there, and is not given to nft: why
}

// include finds the statement where comments are blanked. One inside a string is
// taken, too: a file too many does no harm, and for one too few nft says so.
var include = regexp.MustCompile(`include(?:\s|\\\n)+"([^"\n]*)"`)

// uncomment blanks comments, as nft's scanner sees them: from # to the end of the line,
// outside of double quotes.
func uncomment(text []byte) []byte {
	out := bytes.Clone(text)
	quoted, comment := false, false
	for i, c := range out {
		switch {
		case c == '\n':
			comment = false
		case comment:
			out[i] = ' '
		case c == '"':
			quoted = !quoted
		case c == '#' && !quoted:
			comment = true
			out[i] = ' '
		}
	}
	return out
}

// dir is the directory that the script may include from; "" is none.
func (s *Script) dir() string {
	if s.Path == "" {
		return ""
	}
	return filepath.Dir(s.Path)
}

// Gather reads the files that the script includes: regular ones in the script's own
// directory and below it, reached by no symbolic link that leads out. Whatever else it
// names is left for nft to miss, with the reason. The script's Path becomes absolute.
func (s *Script) Gather() error {
	if s.Path == "" {
		return nil
	}
	abs, err := filepath.Abs(s.Path)
	if err != nil {
		return fmt.Errorf("find script: %w", err)
	}
	s.Path = abs
	g := gatherer{dir: filepath.Dir(abs), seen: map[string]bool{abs: true}, left: maxInclude}
	if s.JSON || !include.Match(s.Text) {
		return nil
	}
	if g.root, err = os.OpenRoot(g.dir); err != nil {
		return fmt.Errorf("open directory of script: %w", err)
	}
	defer g.root.Close()
	if err := g.scan(g.dir, s.Text); err != nil {
		return &RefusedError{[]Problem{{File: s.Name, Reason: err.Error(), Advice: "keep the script and its parts in a directory of their own"}}}
	}
	s.files = g.files
	if len(g.bare) > 0 {
		s.bare = fmt.Sprintf("%s: include %q is read from %s, where nft itself looks in /etc only; ./ in front says what is meant", s.Name, g.bare[0], g.dir)
	}
	return nil
}

type gatherer struct {
	dir   string
	root  *os.Root
	seen  map[string]bool
	files []file
	left  int64
	bare  []string // includes without a directory, which nft looks for in /etc
}

// scan follows the include statements of a text. at is the directory of its file.
func (g *gatherer) scan(at string, text []byte) error {
	for _, m := range include.FindAllSubmatch(uncomment(text), -1) {
		p := string(m[1])
		if !path.IsAbs(p) && !strings.HasPrefix(p, "./") && !strings.HasPrefix(p, "../") && g.dir != "/etc" && !slices.Contains(g.bare, p) {
			g.bare = append(g.bare, p)
		}
		// nft looks from its working directory and from its search path, which both are
		// the script's directory here; newer ones also look beside the including file.
		from := []string{g.dir, at}
		if path.IsAbs(p) {
			from = []string{""}
		}
		for _, d := range slices.Compact(from) {
			if err := g.pattern(path.Join("/", d, p)); err != nil {
				return err
			}
		}
	}
	return nil
}

// pattern takes the files that an absolute pattern names.
func (g *gatherer) pattern(abs string) error {
	rel, ok := strings.CutPrefix(abs, strings.TrimSuffix(g.dir, "/")+"/")
	if !ok {
		if !strings.ContainsAny(abs, "*?[") && !g.seen[abs] {
			g.seen[abs] = true
			return g.refuse(abs, "it is outside of the script's directory "+g.dir)
		}
		if strings.ContainsAny(abs, "*?[") {
			return fmt.Errorf("include %q is outside of the script's directory %s", abs, g.dir)
		}
		return nil
	}
	if !strings.ContainsAny(rel, "*?[") {
		return g.take(rel)
	}
	// What glob(3) would read otherwise than we do would go missing without a word.
	if strings.ContainsAny(rel, `{\`) || strings.Contains(rel, "[:") || strings.Contains(rel, "[.") || strings.Contains(rel, "[=") {
		return fmt.Errorf("include %q: only the wildcards *, ? and [a-z] are understood", abs)
	}
	names, err := fs.Glob(g.root.FS(), strings.ReplaceAll(rel, "[!", "[^"))
	if err != nil {
		return fmt.Errorf("include %q: %w", abs, err)
	}
	for _, n := range names {
		if err := g.take(n); err != nil {
			return err
		}
	}
	return nil
}

func (g *gatherer) refuse(abs, why string) error {
	g.files = append(g.files, file{path: abs, refused: why})
	if len(g.files) > maxFiles {
		return fmt.Errorf("it includes more than %d files", maxFiles)
	}
	return nil
}

var errLinkOut = errors.New("path escapes from parent")

// take reads one file below the directory.
func (g *gatherer) take(rel string) error {
	abs := path.Join(g.dir, rel)
	if g.seen[abs] {
		return nil
	}
	g.seen[abs] = true
	st, err := g.root.Stat(rel)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // nft says so, if it is meant
	case err != nil && strings.Contains(err.Error(), errLinkOut.Error()):
		return g.refuse(abs, "it is a link that leads out of the script's directory "+g.dir)
	case err != nil:
		return g.refuse(abs, errno(err))
	case st.IsDir():
		return nil
	case !st.Mode().IsRegular():
		return g.refuse(abs, "it is not a regular file")
	}
	f, err := g.root.OpenFile(rel, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return g.refuse(abs, errno(err))
	}
	defer f.Close()
	if st, err = f.Stat(); err != nil || !st.Mode().IsRegular() {
		return g.refuse(abs, "it is not a regular file")
	}
	b, err := io.ReadAll(io.LimitReader(f, g.left+1))
	if err != nil {
		return g.refuse(abs, errno(err))
	}
	if g.left -= int64(len(b)); g.left < 0 {
		return fmt.Errorf("it includes more than %d MiB", maxInclude>>20)
	}
	if bytes.IndexByte(b, 0) >= 0 {
		return g.refuse(abs, "it is no text")
	}
	g.files = append(g.files, file{path: abs, text: b})
	if len(g.files) > maxFiles {
		return fmt.Errorf("it includes more than %d files", maxFiles)
	}
	return g.scan(path.Dir(abs), b)
}

func errno(err error) string {
	var e unix.Errno
	if errors.As(err, &e) {
		return e.Error()
	}
	return err.Error()
}

// display is a path as the user would write it.
func (s *Script) display(p string) string {
	switch {
	case strings.HasPrefix(p, inputDir+"/") && s.Path == "":
		return s.Name
	case s.Path == "":
		return p
	case p == s.Path:
		return s.Name
	}
	if rest, ok := strings.CutPrefix(p, filepath.Dir(s.Path)+"/"); ok && !filepath.IsAbs(s.Name) {
		return filepath.Join(filepath.Dir(s.Name), rest)
	}
	return p
}

func (s *Script) displayIn(text string) string {
	if s.Path == "" || filepath.IsAbs(s.Name) {
		return text
	}
	return strings.ReplaceAll(text, s.Path, s.Name)
}
