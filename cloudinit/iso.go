package cloudinit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	diskfile "github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
)

// volumeLabel is what cloud-init's NoCloud datasource looks for.
const volumeLabel = "CIDATA"

// isoBlock is the logical block size in bytes, the only one that every reader of ISO 9660 knows.
const isoBlock = 2048

// WriteISO writes the NoCloud seed image to path, with mode 0600 because the key is in it. A file that is there is
// replaced by a rename, so that a running guest which has it attached keeps the old one.
//
// File names are in Rock Ridge. There is no Joliet tree: blkid would take the label from it.
func (s *Seed) WriteISO(path string) (err error) {
	docs, err := s.Documents()
	if err != nil {
		return err
	}
	// A rename would put the image in the place of a device or a socket as well.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("seed image: %s is there and is not a regular file; it is left alone", path)
	}
	work, err := os.MkdirTemp(filepath.Dir(path), ".rum-seed-*") // mode 0700
	if err != nil {
		return fmt.Errorf("seed image: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()

	tree := filepath.Join(work, "tree")
	if err := s.writeTree(tree, docs); err != nil {
		return fmt.Errorf("seed image: %w", err)
	}
	image := filepath.Join(work, "image")
	if err := writeImage(image, tree); err != nil {
		return fmt.Errorf("seed image %s: %w", path, err)
	}
	if err := os.Rename(image, path); err != nil {
		return fmt.Errorf("seed image: %w", err)
	}
	return nil
}

// writeTree writes the files of the image below dir.
func (s *Seed) writeTree(dir string, docs Documents) error {
	files := []file{
		{"meta-data", docs.MetaData, 0o644},
		{"user-data", docs.UserData, 0o600},
		{"vendor-data", docs.VendorData, 0o644},
	}
	if docs.NetworkConfig != nil {
		files = append(files, file{"network-config", docs.NetworkConfig, 0o644})
	}
	for _, f := range s.agentFiles() {
		f.name = filepath.Join("rum-agent", f.name)
		files = append(files, f)
	}
	if err := os.MkdirAll(filepath.Join(dir, "rum-agent"), 0o755); err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path, f.data, 0o600); err != nil {
			return err
		}
		if err := os.Chmod(path, os.FileMode(f.perm)); err != nil {
			return err
		}
	}
	return nil
}

func writeImage(path, tree string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	fs, err := iso9660.Create(diskfile.New(f, false), 0, 0, isoBlock, tree)
	if err != nil {
		return err
	}
	if err := fs.Finalize(iso9660.FinalizeOptions{RockRidge: true, VolumeIdentifier: volumeLabel}); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}
