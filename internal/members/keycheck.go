package members

import (
	"fmt"
	"runtime"
)

// CheckKeyFile looks for the mistakes in a key file that Open would return. The doubt, if there is one, is of what is possible
// but not safe: everybody on this machine can read the file.
func CheckKeyFile(path string) (doubt string, err error) {
	f, err := openKeyFile(path, readKeys)
	if err != nil {
		return "", err
	}
	if mode := f.last.Mode; runtime.GOOS != "windows" && mode&0o004 != 0 {
		doubt = fmt.Sprintf("%s has the mode %#o, with which every user of this machine can read it; 0400 or 0440 would do", path, mode)
	}
	return doubt, nil
}
