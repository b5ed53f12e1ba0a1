package tunnel_test

import (
	"errors"
	"io"
	"net"
	"testing"

	"github.com/rum-vm/rum-agent/tunnel/wire"
)

func TestAnAnswerIsWaitedForWithoutTakingWhatFollows(t *testing.T) {
	eachKind(t, func(t *testing.T, l *link) {
		refused := service(t, echo)
		taken := service(t, func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "first")
			_, _ = io.Copy(c, c)
			_ = c.Close()
		})
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		refused.Addrs[0] = ln.Addr().(*net.TCPAddr).AddrPort()
		ln.Close()
		s, err := l.Open(t.Context(), refused, []byte("early"))
		if err != nil {
			t.Fatal(err)
		}
		answer, ok := errors.AsType[*wire.AnswerError](s.Answer(t.Context()))
		if !ok || answer.Status != wire.AnswerRefused {
			t.Errorf("a refusal is %v", answer)
		}
		if s, err = l.Open(t.Context(), taken, []byte("early")); err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Answer(t.Context()); err != nil {
			t.Fatal(err)
		}
		_ = s.CloseWrite()
		if got, err := io.ReadAll(s); err != nil || string(got) != "firstearly" {
			t.Errorf("%q, %v", got, err)
		}
	})
}
