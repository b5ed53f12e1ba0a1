package portwatch

import (
	"github.com/prometheus/procfs"
	"github.com/rum-vm/rum-agent/portwatch/process"
)

// SocketHolder is Holder for the unix socket at a path. It knows sockets of this
// network namespace only.
func SocketHolder(path string) string {
	const root = "/proc"
	proc, err := procfs.NewFS(root)
	if err != nil {
		return ""
	}
	table, err := proc.NetUNIX()
	if err != nil {
		return ""
	}
	for _, row := range table.Rows {
		if row.Path == path && row.Inode != 0 {
			return process.Find(root, row.Inode)
		}
	}
	return ""
}
