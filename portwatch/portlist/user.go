package portlist

// Subordinate user IDs, of which a user may have a block for containers of his own
// (SUB_UID_MIN and SUB_UID_COUNT in login.defs(5)).
const (
	SubUIDMin   = 100_000
	SubUIDCount = 65_536
)

// UserOf is the user whose sockets those of uid count as: the IDs of a block are one,
// or a user could be as many as he likes.
func UserOf(uid uint32) uint32 {
	if uid < SubUIDMin {
		return uid
	}
	return uid - (uid-SubUIDMin)%SubUIDCount
}
