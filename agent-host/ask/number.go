package ask

import (
	"fmt"
	"strconv"
)

// Number is that of a port, as it is written on a command line: a value of a flag. The zero value is none.
type Number uint16

// Set reads one.
func (n *Number) Set(text string) error {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return fmt.Errorf("%q is not a port, from 1 to 65535", text)
	}
	*n = Number(port)
	return nil
}

func (n *Number) String() string { return strconv.Itoa(int(*n)) }

// Type is what help calls it that names nothing else.
func (n *Number) Type() string { return "port" }
