package cloudguest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/test/debian"
)

const sector = 512

// firstSector of the partition: behind a gap of 1 MiB for the boot loader, where every tool puts it.
const firstSector = 1 << 20 / sector

// BootableDisk writes a disk to path that boots by itself in a PC with a BIOS, as a cloud image does: GRUB, and one
// partition with the system of the image.
func BootableDisk(ctx context.Context, image debian.Image, path string) (err error) {
	dir, err := os.MkdirTemp("", "rum-grub-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	boot, err := fileIn(ctx, image.Disk, "/boot/grub/boot.img", dir)
	if err != nil {
		return err
	}
	core, err := fileIn(ctx, image.Disk, "/boot/grub/core.img", dir)
	if err != nil {
		return err
	}
	if len(boot) != sector || len(core) > (firstSector-1)*sector {
		return fmt.Errorf("the boot loader has %d and %d bytes", len(boot), len(core))
	}
	system, err := os.Open(image.Disk)
	if err != nil {
		return err
	}
	defer system.Close()
	info, err := system.Stat()
	if err != nil {
		return err
	}
	disk, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	putPartition(boot, info.Size())
	if _, err := disk.Write(append(boot, core...)); err != nil {
		return err
	}
	if err := disk.Truncate(firstSector*sector + info.Size()); err != nil {
		return err
	}
	return copySparse(disk, system, firstSector*sector)
}

// putPartition enters one bootable Linux partition of that many bytes into the table of a master boot record, by block
// numbers alone: its addresses by cylinder, head and sector are the highest, which means beyond those. GRUB's record has
// code for floppy disks where the table is.
func putPartition(record []byte, size int64) {
	clear(record[446:510])
	entry := record[446:462]
	copy(entry, []byte{0x80, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff})
	binary.LittleEndian.PutUint32(entry[8:], firstSector)
	binary.LittleEndian.PutUint32(entry[12:], uint32(size/sector))
	copy(record[510:], []byte{0x55, 0xaa})
}

// fileIn returns a file of an ext4 file system.
func fileIn(ctx context.Context, disk, name, dir string) ([]byte, error) {
	dump := filepath.Join(dir, filepath.Base(name))
	if out, err := exec.CommandContext(ctx, "debugfs", "-R", "dump "+name+" "+dump, disk).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("debugfs: %w\n%s", err, out)
	}
	return os.ReadFile(dump)
}

// copySparse copies what is not a hole to the same place, moved by an offset.
func copySparse(to, from *os.File, by int64) error {
	for end := int64(0); ; {
		begin, err := from.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // no data any more
			return nil
		}
		if err != nil {
			return err
		}
		if end, err = from.Seek(begin, unix.SEEK_HOLE); err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(to, by+begin), io.NewSectionReader(from, begin, end-begin)); err != nil {
			return err
		}
	}
}
