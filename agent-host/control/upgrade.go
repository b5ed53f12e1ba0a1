package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const upgradePath = "/v1/upgrade"

// Upgrade says which binary is to take a guest agent's place.
type Upgrade struct {
	Sum       [sha256.Size]byte
	Size      uint64 // in bytes
	Version   string
	Downgrade bool // it may be an older one
}

func (u Upgrade) form() url.Values {
	return url.Values{"sha256": {hex.EncodeToString(u.Sum[:])}, "size": {strconv.FormatUint(u.Size, 10)},
		"version": {u.Version}, "downgrade": {strconv.FormatBool(u.Downgrade)}}
}

func upgradeOf(form url.Values) (u Upgrade, err error) {
	sum, err := hex.DecodeString(form.Get("sha256"))
	if err != nil || len(sum) != len(u.Sum) {
		return u, fmt.Errorf("sha256 is not %d hexadecimal digits", 2*len(u.Sum))
	}
	u.Sum = [sha256.Size]byte(sum)
	if u.Size, err = strconv.ParseUint(form.Get("size"), 10, 63); err != nil {
		return u, errors.New("size is not a number")
	}
	if u.Version = form.Get("version"); u.Version == "" {
		return u, errors.New("version is missing")
	}
	if u.Downgrade, err = strconv.ParseBool(form.Get("downgrade")); err != nil {
		return u, errors.New("downgrade is neither true nor false")
	}
	return u, nil
}

// upgrade passes a binary on to a guest agent as it comes, and answers when that starts it.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) {
	form := r.URL.Query()
	u, err := upgradeOf(form)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	leave, ok := s.stay(w)
	if !ok {
		return
	}
	defer leave()
	// An error here is of a writer that has no deadlines.
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Time{}) // the guest has one
	err = s.Upgrade(r.Context(), form.Get("vm"), u, io.LimitReader(r.Body, int64(u.Size)))
	_ = control.SetWriteDeadline(time.Now().Add(answerWithin))
	if err != nil {
		guestRefuses(w, err)
		return
	}
	answer(w, struct{}{}, nil)
}

// Upgrade has a VM's guest agent put a binary in its own place and start it, and returns when that begins. The error is a
// [*RefusedError] with status 404 where there is no such VM, 409 where its agent is that binary already, and 502 where it
// does not. Of the binary nothing is read before the guest agent has agreed.
func (c *Client) Upgrade(ctx context.Context, vm string, u Upgrade, binary io.Reader) error {
	form := u.form()
	form.Set("vm", vm)
	body, err := c.patient().sendBody(ctx, http.MethodPost, upgradePath, form, io.NopCloser(binary))
	if err != nil {
		return err
	}
	return body.Close()
}
