// Package rumtoml writes a new rum.toml: what a person is asked, with the ports that are
// seen in running VMs, becomes a file with comments. What a file means is
// agent-host/config's.
package rumtoml
