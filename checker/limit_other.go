//go:build !unix

package checker

// descriptorLimit returns a cautious figure, since this system has no such limit.
func descriptorLimit() int { return 8192 }
