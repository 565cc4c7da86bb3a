//go:build !unix

package checker

// descriptorLimit is a cautious figure for systems without such a limit.
func descriptorLimit() int { return 8192 }
