package main

import (
	"context"
	"errors"
	"io"
)

// serve runs the agent until ctx ends.
func serve(context.Context, options, io.Writer) error {
	return errors.New("serving is not part of this build")
}
