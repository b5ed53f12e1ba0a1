package output

import (
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

func TestAnExplanationIsNumberedMarkedCleanAndFits(t *testing.T) {
	all := []status.Explanation{{VM: "dev", Proto: "tcp", Port: 80, Remedy: "ask\x1b[31m for it", Steps: []status.Step{
		{Name: status.StepListener, OK: true, Text: "nginx\x1b[2J[7] listens on 0.0.0.0:80"},
		{Name: status.StepHost, Text: "127.0.0.1:80 is held by a program with a long name that goes on and on"},
	}}}
	for want, utf8 := range map[string]bool{
		`dev 80/tcp does not work
  1  ✓  listener      nginx?[2J[7] listens on 0.0.0.0:80
  2  ✗  host address  127.0.0.1:80 is held by a program with
                      a long name that goes on and on
to do: ask?[31m for it
`: true,
		`dev 80/tcp does not work
  1  ok  listener      nginx?[2J[7] listens on 0.0.0.0:80
  2  NO  host address  127.0.0.1:80 is held by a program
                       with a long name that goes on and on
to do: ask?[31m for it
`: false,
	} {
		var b strings.Builder
		if err := Explanations(&b, all, utf8, Look{Width: 60}); err != nil {
			t.Fatal(err)
		}
		if b.String() != want {
			t.Errorf("got\n%s\nwant\n%s", b.String(), want)
		}
	}
}
