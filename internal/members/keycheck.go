package members

import (
	"fmt"
	"os"
	"runtime"
)

// CheckKeyFile looks for the mistakes in a key file that Open would return. The doubt, if there is one, is of what is possible
// but not safe: everybody on this machine can read the file.
func CheckKeyFile(path string) (doubt string, err error) {
	if _, err := openKeyFile(path, readKeys); err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o004 != 0 {
		doubt = fmt.Sprintf("%s has the mode %#o, with which every user of this machine can read it; 0400 or 0440 would do", path, info.Mode().Perm())
	}
	return doubt, nil
}
