package scratch

// Jail moves the calling process, which has to be alone in namespaces of its own (see
// run.StartApart), into a root directory in memory that holds nft and its libraries, and
// says where nft is there and what its environment is.
func Jail(nft string) (path string, env []string, err error) {
	t, err := jail(nft)
	if err != nil {
		return "", nil, err
	}
	return t.path, t.env, nil
}

// FindNFT is where nft is installed; empty when it is not.
func FindNFT() string { return findNFT() }
