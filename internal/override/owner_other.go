//go:build !unix

package override

import (
	"io/fs"
	"os"
)

// keepOwner does nothing: a new file belongs to whom the directory says.
func keepOwner(*os.File, fs.FileInfo) error { return nil }

// hasOtherNames cannot be told here.
func hasOtherNames(fs.FileInfo) bool { return false }
