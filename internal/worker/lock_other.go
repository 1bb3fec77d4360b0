//go:build !unix

package worker

import (
	"os"
	"path/filepath"
)

// lockDir opens the lock file of a data directory. This system has no lock that
// ends with its process, so two servers on one directory are not kept apart.
func lockDir(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
}
