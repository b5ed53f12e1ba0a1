package setup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// seedLabel is the volume label that cloud-init's NoCloud looks for, in capitals or not.
const seedLabel = "CIDATA"

// CheckSeed returns an error if the file is not an image that cloud-init would look at.
func CheckSeed(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	label, err := volumeLabel(f)
	switch {
	case err != nil:
		return err
	case label == "":
		return fmt.Errorf("%s is no volume with the label %s, and cloud-init would not look at it", path, seedLabel)
	case !strings.EqualFold(label, seedLabel):
		return fmt.Errorf("%s has the volume label %q, and cloud-init looks for %s only", path, label, seedLabel)
	}
	return nil
}

// volumeLabel reads the label of the file systems that NoCloud takes, which are ISO 9660 and FAT; empty for all else.
func volumeLabel(r io.ReaderAt) (string, error) {
	for _, fs := range []struct {
		magic   string
		magicAt int64
		labelAt int64
		size    int
	}{
		{"\x01CD001\x01", 16 * 2048, 16*2048 + 40, 32}, // ECMA-119 8.4: the primary volume descriptor
		{"FAT12   ", 54, 43, 11},                       // the boot sector as Microsoft's FAT specification has it
		{"FAT16   ", 54, 43, 11},
		{"FAT32   ", 82, 71, 11},
	} {
		magic, label := make([]byte, len(fs.magic)), make([]byte, fs.size)
		_, err := r.ReadAt(magic, fs.magicAt)
		if err == nil && string(magic) == fs.magic {
			if _, err = r.ReadAt(label, fs.labelAt); err == nil {
				return string(bytes.TrimRight(label, " \x00")), nil
			}
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
	}
	return "", nil
}
