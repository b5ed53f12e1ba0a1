// Greeter listens at vsock port 22 of the guest that it runs in, as the SSH server of systemd does, and greets whoever
// connects as an SSH server does.
package main

import (
	"fmt"
	"log"

	"github.com/mdlayher/vsock"
)

func main() {
	l, err := vsock.Listen(22, nil)
	if err != nil {
		log.Fatal(err)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Fprint(c, "SSH-2.0-greeter\r\n")
		c.Close()
	}
}
