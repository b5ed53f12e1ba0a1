package userconfig

import (
	"context"
	"os"
)

// Reloader has those who follow files read them anew. The zero value has nobody.
type Reloader struct {
	// Began, if there is one, is called before files are read, and what it returns after that.
	Began func() (ended func())

	asked []chan func()
}

// Asked is for one who follows files: what it has is to be called when they have been read anew. It is to be had
// before the first [Reloader.Reload].
func (r *Reloader) Asked() <-chan func() {
	asked := make(chan func())
	r.asked = append(r.asked, asked)
	return asked
}

// Reload returns when all files have been read anew. The error is that of ctx.
func (r *Reloader) Reload(ctx context.Context) error {
	if r.Began != nil {
		defer r.Began()()
	}
	for _, asked := range r.asked {
		done := make(chan struct{})
		select {
		case asked <- func() { close(done) }:
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// On reloads on each signal, until ctx ends.
func (r *Reloader) On(ctx context.Context, hup <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			_ = r.Reload(ctx) // fails with ctx alone
		}
	}
}
