package handshake

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/tunnel/wire"
)

func TestTheExampleOfTheProtocolDocumentIsWhatIsSaid(t *testing.T) {
	doc, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(doc), "\n### An example\n")
	example, _, _ = strings.Cut(example, "\n## ")
	said, name := make(map[string]string), ""
	for line := range strings.Lines(example) {
		if words := strings.Fields(line); strings.HasPrefix(line, "    ") {
			if len(words) == 2 {
				name = words[0]
			}
			said[name] += words[len(words)-1]
		}
	}

	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(i)
	}
	hello := wire.HelloFrame{Min: protocolVersion, Max: protocolVersion, HasKey: true, Features: features}
	copy(hello.Nonce[:], bytes.Repeat([]byte{0xaa}, wire.NonceSize))
	reply := wire.ReplyFrame{Version: protocolVersion, Min: protocolVersion, Max: protocolVersion, HasKey: true, Hello: hello.Nonce}
	copy(reply.Nonce[:], bytes.Repeat([]byte{0xbb}, wire.NonceSize))
	copy(reply.Instance[:], bytes.Repeat([]byte{0xcc}, 16))
	reply.More = binary.BigEndian.AppendUint64(nil, features)
	transcript := func(purpose string) [32]byte { return secret(key, purpose, hello.Encode(), reply.Signed()) }
	reply.Proof = transcript("guest proof")
	proof := wire.VerdictFrame{Nonce: reply.Nonce, Proof: transcript("host proof")}
	ready := wire.VerdictFrame{Nonce: hello.Nonce}
	var a Agreed
	a.conclude(key, hello.Encode(), reply.Signed())
	for name, want := range map[string][]byte{
		"hello": wire.AppendFrame(nil, wire.FrameHello, hello.Encode()),
		"reply": wire.AppendFrame(nil, wire.FrameReply, reply.Encode()),
		"proof": wire.AppendFrame(nil, wire.FrameProof, proof.Encode()),
		"ready": wire.AppendFrame(nil, wire.FrameReady, ready.Encode()),
		"token": a.Token[:],
	} {
		if got := said[name]; got != hex.EncodeToString(want) {
			t.Errorf("%s in the document:\n%s\nwant\n%x", name, got, want)
		}
	}
}
