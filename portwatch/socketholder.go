package portwatch

import "github.com/prometheus/procfs"

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
			return newSweep(root).find(map[uint64]bool{row.Inode: true})[row.Inode].String()
		}
	}
	return ""
}
