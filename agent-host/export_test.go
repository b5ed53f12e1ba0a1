package hostagent

import "time"

// SetUpgradeSilence replaces how long a guest agent may take nothing of a binary. It must be called before there is one.
func SetUpgradeSilence(d time.Duration) (undo func()) {
	before := upgradeSilence
	upgradeSilence = d
	return func() { upgradeSilence = before }
}
