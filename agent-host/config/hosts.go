package config

import (
	"slices"

	"github.com/rum-vm/rum-agent/agent-host/remote/address"
)

const keyURL = "url"

// hostTables reads the [[hosts]] tables: other hosts whose VMs are served here.
func (t table) hostTables() (all []address.Address) {
	rows := t.tables(tableHosts)
	if len(rows) > 0 && t.doc.domain != "" {
		t.errorf(tableHosts, "a project names no hosts; the file of --config does")
		return nil
	}
	for _, row := range rows {
		row.allow(keyURL)
		text, ok := row.text(keyURL)
		if !ok {
			if !row.has(keyURL) {
				row.doc.errorf(row.path, "url is missing, as in url = \"ssh://server\"")
			}
			continue
		}
		a, err := address.Parse(text)
		if err != nil {
			row.errorf(keyURL, "%v", err)
			continue
		}
		if slices.ContainsFunc(all, func(o address.Address) bool { return o.Name() == a.Name() }) {
			row.errorf(keyURL, "a host %s is there already; give this one a name of its own in ~/.ssh/config", a.Name())
			continue
		}
		all = append(all, a)
	}
	return all
}
