package output

import (
	"errors"
	"fmt"
	"math"

	"github.com/spf13/pflag"
)

// FlagError is err, or for a value that a flag's library cannot parse, which value of which flag and what is wanted instead.
func FlagError(err error) error {
	invalid, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return err
	}
	flag := invalid.GetFlag()
	switch flag.Value.Type() {
	case "bool":
		return fmt.Errorf("--%s %q: want true or false", flag.Name, invalid.GetValue())
	case "duration":
		return fmt.Errorf("--%s %q: want a duration, such as 500ms, 30s or 5m", flag.Name, invalid.GetValue())
	case "uint32":
		return fmt.Errorf("--%s %q: want a whole number from 0 to %d", flag.Name, invalid.GetValue(), uint32(math.MaxUint32))
	}
	return err // a flag of ours says what it wants
}
