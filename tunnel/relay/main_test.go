package relay

import (
	"testing"

	"github.com/rum-vm/rum-agent/test/ownnet"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	ownnet.Enter()
	goleak.VerifyTestMain(m)
}
