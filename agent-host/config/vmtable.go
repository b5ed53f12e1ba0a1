package config

import "path"

// Keys of [[vm]].
const keyName, keyOpenURLs = "name", "open_urls"

var vmKeys = []string{keyName, keyOpenURLs}

// Values of [VMTable.OpenURLs].
const (
	OpenNo  = "no"
	OpenAsk = "ask"
	OpenYes = "yes"
)

// VMTable is one element of [[vm]]: what the VMs of a name may do.
type VMTable struct {
	// Name is a glob for the names of VMs, as of [path.Match]; empty for all of this host.
	Name string
	// OpenURLs is whether they have pages opened in the user's browser, and whether he is asked.
	OpenURLs string
}

// OpenURLs is the setting for a VM: that of the first table with its name, else [OpenNo].
func (c *Config) OpenURLs(vm string) string {
	for _, t := range c.VMs {
		if ok, err := path.Match(t.Name, vm); t.Name == "" && !isRemote(vm) || ok && err == nil {
			return t.OpenURLs
		}
	}
	return OpenNo
}

func (t table) vmTables() (all []VMTable) {
	for _, row := range t.tables(tableVM) {
		row.allow(vmKeys...)
		v := VMTable{Name: row.glob(keyName), OpenURLs: OpenNo}
		if word, ok := row.word(keyOpenURLs, OpenNo, OpenAsk, OpenYes); ok {
			v.OpenURLs = word
		}
		if t.doc.domain != "" && v.OpenURLs == OpenYes {
			t.doc.warnf(row.path.Key(keyOpenURLs), "has this VM open pages in your browser without asking; say %q if the file is not yours", OpenAsk)
		}
		all = append(all, v)
	}
	return all
}
