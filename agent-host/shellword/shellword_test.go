package shellword_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/shellword"
)

func TestAShellReadsEachWordAsItIs(t *testing.T) {
	words := []string{"plain", "", "a b", "it's", `"`, "$(touch /nowhere/pwned)", "`id`", `\`, "*", "~", "a\nb", "-x", "#", "a=b", "!", "é", "{a,b}", "|", ";"}
	out, err := exec.Command("sh", "-c", "printf '%s\\0' "+shellword.Join(words...)).Output()
	if got, want := string(out), strings.Join(words, "\x00")+"\x00"; err != nil || got != want {
		t.Errorf("error %v\ngot  %q\nwant %q", err, got, want)
	}
	if got := shellword.Join("ssh", "-p", "22", "rum@192.168.122.76"); got != "ssh -p 22 rum@192.168.122.76" {
		t.Errorf("%s", got)
	}
}
