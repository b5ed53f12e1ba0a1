package config_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/config"
)

// minimal is what rum requires.
const minimal = "[image]\nbase = \"trixie.qcow2\"\n[resources]\ncpus = 1\nmemory_mb = 512\n"

// rumFiles are files that rum accepts, and where they have listeners, which stand for
// the rules.
var rumFiles = []struct {
	name, file, text string
	rules            int
	where            [][2]string
}{
	{"minimal", "rum.toml", minimal, 0, [][2]string{{"tcp 0.0.0.0:8080", both("8080")}, {"tcp 0.0.0.0:80", "ignored: below 1024: add a rule, guest = 80, host = 8080"}}},
	{"ports", "rum.toml", minimal + "[[ports]]\nhost = 8080\nguest = 80\n[[ports]]\nhost = 5432\nguest = 5432\nbind = \"0.0.0.0\"\n[[ports]]\nhost = 9000\nguest = 9000\nbind = \"\"\n", 3,
		[][2]string{{"tcp 0.0.0.0:80", "127.0.0.1:8080"}, {"tcp [::1]:5432", "0.0.0.0:5432"}, {"tcp 0.0.0.0:9000", "127.0.0.1:9000"}, {"udp 0.0.0.0:9000", both("9000")}}},
	{"one port at two addresses", "rum.toml", minimal + "[[ports]]\nhost = 8080\nguest = 80\n[[ports]]\nhost = 8080\nguest = 81\nbind = \"::1\"\n", 2,
		[][2]string{{"tcp 0.0.0.0:80", "127.0.0.1:8080"}, {"tcp 0.0.0.0:81", "[::1]:8080"}}},
	{"keys of ours", "rum.toml", minimal + "[auto_ports]\nrange = \"5000-6000\"\nbind = \"127.0.0.1\"\n[[ports]]\nhost = 3000\nguest = 3000\nlabel = \"web\"\nhold = \"5s\"\nstatic = true\n[[forward]]\nguest = \"4000-4010\"\n[[forward]]\nguest = 9229\nignore = true\n", 4,
		[][2]string{{"tcp 0.0.0.0:3000", "127.0.0.1:3000"}, {"tcp 0.0.0.0:4010", both("4010")}, {"tcp 0.0.0.0:9229", "ignored: ignored by rum.toml:17"}, {"tcp 0.0.0.0:5000", "127.0.0.1:5000"}, {"tcp 0.0.0.0:7000", "ignored: not in the range of auto_ports, 5000-6000"}}},
	{"the order of the file", "rum.toml", "[[forward]]\nguest = 80\nprocess = \"nginx\"\nhost = 8081\n[[ports]]\nhost = 8080\nguest = 80\n[[forward]]\nguest = 80\nignore = true\n" + minimal, 3,
		[][2]string{{"tcp 0.0.0.0:80 nginx[1]", both("8081")}, {"tcp 0.0.0.0:80 other[1]", "127.0.0.1:8080"}}},
	{"written in one line each", "rum.toml", "image.base = \"x\"\nresources = { cpus = 2, memory_mb = 256, disk = \"512M\" }\nports = [{ host = 8080, guest = 80 }, { host = 8081, guest = 81 }]\nforward = [{ guest = \"1-1023\", ignore = true }]\nfs.ext4 = [{ drive = \"d\", target = \"/d\" }]\ndrives.d.size = \"1G\"\n", 3,
		[][2]string{{"tcp 0.0.0.0:81", "127.0.0.1:8081"}, {"tcp 0.0.0.0:82", "ignored: ignored by rum.toml:4"}}},
	{"named, with interfaces", "dev.rum.toml", minimal + "[network]\nnat = false\nhostname = \"dev.example\"\nwait_for_ip = false\nip_wait_timeout_s = 0\nhost_only = \"lab\"\n[[network.interfaces]]\nnetwork = \"a\"\nip = \"10.1.0.5\"\n[[network.interfaces]]\nnetwork = \"b\"\n[[ports]]\nguest = 80\nhost = 8080\n", 1,
		[][2]string{{"tcp 0.0.0.0:80", "127.0.0.1:8080"}}},
	{"drives and file systems", "rum.toml", minimal + "[drives.z1]\nsize = \"10G\"\n[drives.\"z 2\"]\nsize = \"10gb\"\n[drives.e]\nsize = \"1073741824\"\n[drives.b]\nsize = \" 1T \"\n[drives.x]\nsize = \"1M\"\n" +
		"[[fs.zfs]]\ndrives = [\"z1\", \"z 2\"]\ntarget = \"/tank\"\npool = \"tank\"\nmode = \"mirror\"\n[[fs.ext4]]\ndrive = \"e\"\ntarget = \"/e\"\n[[fs.btrfs]]\ndrives = [\"b\"]\ntarget = \"/b\"\nmode = \"single\"\n[[fs.xfs]]\ndrive = \"x\"\ntarget = \"/x\"\n", 0,
		[][2]string{{"tcp 0.0.0.0:8080", both("8080")}}},
	{"scripts", "rum.toml", minimal + "[provision.system]\nscript = \"\"\"\nset -eu\n[[ports]]\nguset = 80 # \\\"\n'''\n[netwrok]\n\"\"\"\n[provision.boot]\nscript = '''\n[[ports]]\nhost = \"\"\"\n'''\n[[ports]]\nguest = 80\nhost = 8080\n", 1,
		[][2]string{{"tcp 0.0.0.0:80", "127.0.0.1:8080"}}},
	{"comments everywhere", "rum.toml", "# [[ports]]\n[ image ] # \"\nbase = 'x' # '''\n[resources] #\n  cpus = 4 # [network]\n\tmemory_mb = 4_096\n#\n[ssh]# keys\nauthorized_keys = [ # one\n  \"ssh-ed25519 AAAA # no comment\", # two\n  # three\n]\n[[ ports ]] # web\nhost = 8080 # host\n# between\nguest = 80 # guest\n#", 1,
		[][2]string{{"tcp 0.0.0.0:80", "127.0.0.1:8080"}}},
	{"every table", "all.rum.toml", `name = "all"
[image]
base = "https://images.example.org/x.img"
[resources]
cpus = 6
memory_mb = 6144
disk = "40G"
[network]
nat = true
hostname = "all"
wait_for_ip = true
ip_wait_timeout_s = 90
[[network.interfaces]]
network = "hostonly"
ip = "192.168.50.10"
[provision.system]
script = "true"
[provision.boot]
script = "true"
[advanced]
libvirt_uri = "qemu:///session"
domain_type = "kvm"
machine = "q35"
autologin = true
[ssh]
user = "me"
command = "ssh"
interface = "hostonly"
authorized_keys = []
[user]
name = "me"
groups = ["docker"]
[[mounts]]
source = "."
target = "/mnt/project"
readonly = false
tag = "project"
default = true
[[mounts]]
source = "git"
target = "/mnt/projects"
inotify = true
[drives.d]
size = "1G"
[[fs.ext4]]
drive = "d"
target = "/srv"
[auto_ports]
range = "5000-6000"
bind = "127.0.0.1"
[[ports]]
host = 8080
guest = 80
bind = "127.0.0.1"
`, 2, [][2]string{{"tcp 0.0.0.0:80", "127.0.0.1:8080"}, {"tcp 0.0.0.0:5001", "127.0.0.1:5001"}, {"tcp 0.0.0.0:4999", "ignored: not in the range of auto_ports, 5000-6000"}}},
}

func TestWhatRumAcceptsIsAcceptedWithItsRules(t *testing.T) {
	for _, row := range rumFiles {
		c, err := config.ParseProject("/p/"+row.file, []byte(row.text))
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		if len(c.Rules) != row.rules || len(c.Warnings) > 0 {
			t.Errorf("%s: %d rules, warnings %v", row.name, len(c.Rules), c.Warnings)
		}
		for _, want := range row.where {
			if got := place(c.Rules.Decide("vm", listener(t, want[0]))); got != want[1] {
				t.Errorf("%s: %s is at %s, want %s", row.name, want[0], got, want[1])
			}
		}
		// --config takes it as well, for the same.
		if other, err := config.Parse("/p/"+row.file, []byte(row.text)); err != nil || len(other.Rules) != len(c.Rules) {
			t.Errorf("%s with --config: %v", row.name, err)
		}
	}
	c, err := config.ParseProject("all.rum.toml", []byte(rumFiles[len(rumFiles)-1].text))
	if err != nil || c.LibvirtURI != "qemu:///session" || c.User != "me" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestTyposInARumFileAreNamedWithTheirLineAndTheRightName(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{minimal + "[netwrok]\nnat = true\n", `6:1: netwrok: unknown key; did you mean network?`},
		{minimal + "[ports]\nhost = 1\n", `6:1: ports: want tables, each under a [[ports]] of its own, not a table`},
		{minimal + "[[port]]\nhost = 1\nguest = 1\n", `6:1: port: unknown key; did you mean ports?`},
		{minimal + "[[forwards]]\nguest = 1\n", `6:1: forwards: unknown key; did you mean forward?`},
		{minimal + "[[ports]]\nhost = 8080\nguset = 80\n", `8:1: ports.guset: unknown key; did you mean guest?`},
		{minimal + "[[ports]]\nhost = 8080\nguest = 80\nbnid = \"::\"\n", `9:1: ports.bnid: unknown key; did you mean bind?`},
		{minimal + "[[ports]]\nhost = 8080\nguest = 80\n\n[[ports]]\n# x\nhots = 81\nguest = 81\n", `12:1: ports.hots: unknown key; did you mean host?`},
		{minimal + "[[forward]]\nguest = 80\nignroe = true\n", `8:1: forward.ignroe: unknown key; did you mean ignore?`},
		{minimal + "[network]\nnat = true\nhostnmae = \"x\"\n", `8:1: network.hostnmae: unknown key; did you mean hostname?`},
		{minimal + "[[network.interfaces]]\nnetwork = \"a\"\n[[network.interfaces]]\nnetwrk = \"b\"\n", `9:1: network.interfaces.netwrk: unknown key; did you mean network?`},
		{minimal + "[[network.interface]]\nnetwork = \"a\"\n", `6:1: network.interface: unknown key; did you mean interfaces?`},
		{minimal + "[auto_ports]\nrnage = \"1-2\"\n", `7:1: auto_ports.rnage: unknown key; did you mean range?`},
		{minimal + "cpu = 4\n", `6:1: resources.cpu: unknown key; did you mean cpus?`},
		{minimal + "memory = 4\n", `6:1: resources.memory: unknown key; known here are cpus, disk, memory_mb`},
		{minimal + "[drives.a]\nsize = \"1G\"\n[drives.b]\nsizes = \"1G\"\n", `9:1: drives.b.sizes: unknown key; did you mean size?`},
		{minimal + "[drive.a]\nsize = \"1G\"\n", `6:1: drive: unknown key; did you mean drives?`},
		{minimal + "[drives.a]\nsize = \"1G\"\n[[fs.ext4]]\ndrive = \"a\"\ntraget = \"/a\"\n", `10:1: fs.ext4.traget: unknown key; did you mean target?`},
		{minimal + "[provision.systen]\nscript = \"x\"\n", `6:1: provision.systen: unknown key; did you mean system?`},
		{minimal + "[provision.boot]\nscripts = \"\"\"\nx\n\"\"\"\n", `7:1: provision.boot.scripts: unknown key; did you mean script?`},
		{minimal + "[advanced]\nlibvirt_url = \"qemu:///system\"\n", `7:1: advanced.libvirt_url: unknown key; did you mean libvirt_uri?`},
		{minimal + "[[mounts]]\nsource = \".\"\ntarget = \"/x\"\nread_only = true\n", `9:1: mounts.read_only: unknown key; did you mean readonly?`},
		{minimal + "[user]\nname = \"x\"\n[ssh]\nauthorised_keys = []\n", `9:1: ssh.authorised_keys: unknown key; did you mean authorized_keys?`},
		{"imgae.base = \"x\"\nresources = {cpus = 1, memory_mb = 256, dsik = \"1G\"}\n", "1:1: imgae: unknown key; did you mean image?\n2:41: resources.dsik: unknown key; did you mean disk?"},
		{minimal + "[\"net\\u0077rok\"]\n", `6:1: netwrok: unknown key; did you mean network?`},
		{minimal + "[[ports]]\nhost = 8080\nguest = 80\n[[ports]]\nhost = 8080\nguest = 81\n", `10:1: ports.host: rum.toml:6 has host port 8080 already, for another guest port`},
		{minimal + "[image]\n", `6:2: Key 'image' has already been defined.`},
		{minimal + "[provision.boot]\nscript = \"\"\"\nno end\n", `8:7: provision.boot.script: unexpected EOF`},
	} {
		_, err := config.ParseProject("rum.toml", []byte(row.text))
		if err == nil {
			t.Errorf("accepted, want %s\n%s", row.want, row.text)
			continue
		}
		want := "rum.toml:" + strings.ReplaceAll(row.want, "\n", "\nrum.toml:")
		if got := err.Error(); !strings.HasPrefix(got, want) {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
}

func TestWhatRumWillRefuseIsAWarningWithItsLine(t *testing.T) {
	refuses := "rum refuses the file: "
	drive := minimal + "[drives.d]\nsize = \"1G\"\n"
	for _, row := range []struct{ text, want string }{
		{"", "1:1: image: " + refuses + "it wants a table; 1:1: resources: " + refuses + "it wants a table"},
		{"[image]\n[resources]\ncpus = 1\nmemory_mb = 256\n", "1:1: image.base: " + refuses + "it wants a string"},
		{"[image]\nbase = 1\n[resources]\ncpus = \"2\"\nmemory_mb = 255\ndisk = \"20X\"\n", "2:1: image.base: " + refuses + "it wants a string, not an integer; 4:1: resources.cpus: " + refuses + "it wants an integer from 0 up, not a string; 5:1: resources.memory_mb: " + refuses + "the least is 256; 6:1: resources.disk: " + refuses + `"20X" is not a size such as "20G"`},
		{strings.Replace(minimal, "cpus = 1", "cpus = -2", 1), "4:1: resources.cpus: " + refuses + "it wants an integer from 0 up, not -2"},
		{strings.Replace(minimal, "cpus = 1", "cpus = 5000000000", 1), "4:1: resources.cpus: " + refuses + "the most is 4294967295"},
		{minimal + "disk = \"99999999999999T\"\n", "6:1: resources.disk: " + refuses + `the size "99999999999999T" is larger than 64 bits hold`},
		{minimal + "disk = \"16777216tb\"\n", "6:1: resources.disk: " + refuses + `the size "16777216tb" is larger`},
		{minimal + "disk = \"99999999999999999999\"\n", "6:1: resources.disk: " + refuses + `the size "99999999999999999999" is larger`},
		{minimal + "disk = \"16777215TB\"\n", ""},
		{minimal + "disk = \"20b\"\n", "6:1: resources.disk: " + refuses + `"20b" is not a size`},
		{minimal + "[[mounts]]\nsource = \".\"\ntarget = \"/a/b\"\n[[mounts]]\nsource = \".\"\ntarget = \"/a_b\"\n", "11:1: mounts.target: " + refuses + `an earlier mount has the tag "a_b"`},
		{minimal + "[[mounts]]\ntarget = \"/a\"\n[[mounts]]\ntarget = \"/a\"\n", "9:1: mounts.target: " + refuses + "line 6 mounts /a already"},
		{minimal + "[[ports]]\nguest = 53\nhost = 5353\nproto = \"udp\"\n", "9:1: ports.proto: rum takes the rule for a port to forward over tcp; put it into [[forward]]"},
		{minimal + "[[ports]]\nguest = 53\nhost = 5353\nproto = \"tcp\"\n", ""},
		{strings.Replace(minimal, "cpus = 1", "cpus = 0", 1), "4:1: resources.cpus: " + refuses + "the least is 1"},
		{minimal + "[network]\nhostname = \"-x\"\n[[network.interfaces]]\nip = \"10.0.0.1\"\n", "7:1: network.hostname: " + refuses + "a host name; 8:1: network.interfaces.network: " + refuses + "an interface is on a network"},
		{minimal + "[provision.boot]\n", "6:1: provision.boot.script: " + refuses + "it wants a string"},
		{minimal + "[[mounts]]\nsource = \".\"\ntarget = \"x\"\n", "8:1: mounts.target: " + refuses + "target has to be an absolute path"},
		{minimal + "[[mounts]]\ntarget = \"/a\"\ntag = \"t\"\ndefault = true\n[[mounts]]\ntarget = \"/a/b\"\ntag = \"t\"\ndefault = true\n", "11:1: mounts.target: " + refuses + "line 6 mounts /a already; 12:1: mounts.tag: " + refuses + `an earlier mount has the tag "t"; 13:1: mounts.default: ` + refuses + "an earlier mount is the default"},
		{drive + "[[fs.ext4]]\ndrive = \"e\"\ntarget = \"/x\"\n", "9:1: fs.ext4.drive: " + refuses + "there is no [drives.e]"},
		{drive + "[[fs.zfs]]\ndrive = \"d\"\ntarget = \"/x\"\n", "8:1: fs.zfs.drives: " + refuses + "zfs takes drives; 9:1: fs.zfs.drive: " + refuses + "zfs takes drives"},
		{drive + "[[fs.ext4]]\ndrive = \"d\"\ntarget = \"/x\"\npool = \"p\"\nmode = \"m\"\n", "11:1: fs.ext4.pool: " + refuses + "it is for zfs only; 12:1: fs.ext4.mode: " + refuses + "it is for zfs and btrfs only"},
		{drive + "[[fs.ext4]]\ndrive = \"d\"\ntarget = \"/x\"\n[[fs.xfs]]\ndrive = \"d\"\ntarget = \"/y\"\n", "12:1: fs.xfs.drive: " + refuses + `drive "d" is in use`},
		{minimal + "[drives]\nd = \"1G\"\ne = {size = 1}\n", "7:1: drives.d: " + refuses + "it wants a table, not a string; 8:6: drives.e.size: " + refuses + "it wants a string, not an integer"},
		{minimal + "[drives.d]\n", "6:1: drives.d.size: " + refuses + `"" is not a size`},
		{minimal + "[drives.d]\nsize = \"\"\n", "7:1: drives.d.size: " + refuses + `"" is not a size`},
		{minimal + "[ssh]\nauthorized_keys = [1]\n", "7:1: ssh.authorized_keys: " + refuses + "it wants an array of strings, not an array"},
		// [[ports]]: what is ours goes into [[forward]].
		{minimal + "[[ports]]\nguest = \"4000-4010\"\nhost = \"4000-4010\"\n", "8:1: ports.host: " + refuses + "it wants integers, host and guest, in each [[ports]]; put the rule into [[forward]]"},
		{minimal + "[[ports]]\nguest = 80\n", "6:1: ports: " + refuses + "it wants integers, host and guest"},
		{minimal + "[[ports]]\nprocess = \"node\"\n", "6:1: ports: " + refuses + "it wants integers, host and guest"},
		{minimal + "[[ports]]\nguest = 80\nhost = 8080\nreverse = true\n", "9:1: ports.reverse: rum takes the rule for a port to forward; put it into [[forward]]"},
		{minimal + "[[ports]]\nguest = 80\nignore = true\n", "6:1: ports: " + refuses + "it wants integers, host and guest, in each [[ports]]; put the rule into [[forward]]; 8:1: ports.ignore: rum takes"},
		{minimal + "[[ports]]\nguest = 80\nhost = 8080\nprocess = \"a\"\n[[ports]]\nguest = 80\nhost = 8080\n", "12:1: ports.host: " + refuses + "line 6 has host port 8080 already; put one of the rules into [[forward]]"},
		// rum tells ports apart by the address too.
		{minimal + "[[ports]]\nguest = 80\nhost = 8080\n[[ports]]\nguest = 81\nhost = 8080\nbind = \"0.0.0.0\"\n", "11:1: ports.host: rum.toml:6 has host port 8080 already, for another guest port, and of 127.0.0.1 and 0.0.0.0 only one is open at a time"},
		{minimal + "[[ports]]\nguest = 80\nhost = 8080\nbind = \"0.0.0.0\"\n[[ports]]\nguest = 80\nhost = 8080\n", ""},
		{minimal + "[advanced]\nlibvirt_uri = \"qemu+ext:///system?command=/tmp/x\"\n", "7:1: advanced.libvirt_uri: is not used"},
		{minimal + "[advanced]\nlibvirt_uri = \"qemu:///system?socket=/tmp/x\"\n", "7:1: advanced.libvirt_uri: is not used"},
	} {
		c, err := config.ParseProject("rum.toml", []byte(row.text))
		if err != nil {
			t.Errorf("%v\n%s", err, row.text)
			continue
		}
		var got []string
		for _, w := range c.Warnings {
			got = append(got, strings.TrimPrefix(w.Error(), "rum.toml:"))
		}
		want := strings.Split(row.want, "; ")
		// Some texts have a semicolon of their own.
		if text := strings.Join(got, "; "); !strings.HasPrefix(text, strings.Join(want, "; ")) && !startAlike(got, want) {
			t.Errorf("got %s\nwant %s\n%s", text, row.want, row.text)
		}
		if c.LibvirtURI != "" {
			t.Errorf("a file brought %s", c.LibvirtURI)
		}
	}
	if c, err := config.ParseProject("/p/-x.rum.toml", []byte(minimal)); err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0].Text, "cannot name a VM") {
		t.Errorf("%v", err)
	}
	// Of a file that is not rum's, nothing of this is asked.
	if c := parse(t, "[[ports]]\nguest = \"1-2\"\n[[ports]]\nreverse = true\nguest = 80\n"); len(c.Warnings) > 0 {
		t.Errorf("%v", c.Warnings)
	}
}

// startAlike reports whether each text begins as wanted.
func startAlike(got, want []string) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if !strings.HasPrefix(got[i], want[i]) {
			return false
		}
	}
	return true
}

func TestIdentityIsThatOfRum(t *testing.T) {
	for path, want := range map[string]string{
		"/p/rum.toml": "", "/p/dev.rum.toml": "dev", "/p/a.b.rum.toml": "a.b", "/p/dev.toml": "dev", "/p/rum.rum.toml": "rum",
	} {
		if got := config.VMName(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	// FNV-1a of "", "a" and "foobar" as its authors publish it, low halves.
	hash := func(path string) string { return config.ProjectID(path) }
	if got := hash("rum.toml"); len(got) != 8 || got == hash("/rum.toml") {
		t.Errorf("%s", got)
	}
	want := uint64(0xcbf29ce484222325)
	for _, b := range []byte("/home/me/shop/shop.rum.toml" + "shop") {
		want = (want ^ uint64(b)) * 0x100000001b3
	}
	if got := hash("/home/me/shop/shop.rum.toml"); got != fmt.Sprintf("%08x", uint32(want)) {
		t.Errorf("%s, want %08x", got, uint32(want))
	}
}

func TestEitherTableTakesEverythingWithConfig(t *testing.T) {
	for _, table := range []string{"ports", "forward"} {
		c := parse(t, strings.ReplaceAll("[[T]]\nguest = \"4000-4010\"\nhost = \"5000-5010\"\n[[T]]\nguest = 9229\nignore = true\n[[T]]\nguest_socket = \"/g\"\nhost = 1\n[[T]]\nguest = 3\nreverse = true\n[[T]]\nguest = 80\nhost = 8080\nbind = \"127.0.0.2\"\n", "T", table))
		for l, want := range map[string]string{
			"tcp 0.0.0.0:4001": both("5001"), "tcp 0.0.0.0:9229": "ignored: ignored by rum.toml:4", "tcp 0.0.0.0:80": "127.0.0.2:8080",
		} {
			if got := place(c.Rules.Decide("vm", listener(t, l))); got != want {
				t.Errorf("%s: %s is at %s, want %s", table, l, got, want)
			}
		}
		if len(c.Rules.Sockets("vm")) != 1 || len(c.Rules.Reverses("vm")) != 1 || len(c.Warnings) > 0 {
			t.Errorf("%s: %+v", table, c)
		}
	}
	for text, want := range map[string]string{
		"guest = 1\nbind = \"::\"\nhost_ip = \"::\"": "bind: cannot go with host_ip", "guest = 1\nhold = \"1h\"": "hold: \"1h\" is not a time",
		"guest = 1\nbind = \"x\"": "bind: \"x\" is neither",
	} {
		if _, err := config.Parse("f", []byte("[[forward]]\n"+text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		} else if _, ok := errors.AsType[*config.Error](err); !ok {
			t.Error(err)
		}
	}
}

func TestARuleOfAProjectForAnotherVMIsAWarningWithItsLine(t *testing.T) {
	unnamed := config.ProjectID("/home/me/shop/rum.toml")
	for _, row := range []struct{ file, vm, want string }{
		{"/home/me/shop/shop.rum.toml", "shop", ""},
		{"/home/me/shop/shop.rum.toml", "sh*", ""},
		{"/home/me/shop/shop.rum.toml", "blog", "/home/me/shop/shop.rum.toml:8:1: forward.vm: the rule never matches: the file is for the VM shop alone; leave vm out"},
		{"/home/me/shop/shop.rum.toml", unnamed, ":8:1: forward.vm: the rule never matches"},
		{"/home/me/shop/rum.toml", unnamed, ""},
		{"/home/me/shop/rum.toml", "shop", "/home/me/shop/rum.toml:8:1: forward.vm: the rule never matches: the file is for the VM " + unnamed + " alone"},
	} {
		text := minimal + "[[forward]]\nguest = 80\nvm = \"" + row.vm + "\"\n"
		c, err := config.ParseProject(row.file, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(c.Warnings)
		if row.want == "" && len(c.Warnings) > 0 || !strings.Contains(got, row.want) {
			t.Errorf("%s, vm = %q: got %s, want %q", row.file, row.vm, got, row.want)
		}
		// A file that holds for all VMs may name any.
		if c, err := config.Parse(row.file, []byte(text)); err != nil || len(c.Warnings) > 0 {
			t.Errorf("%s with --config: %v, %v", row.file, c.Warnings, err)
		}
	}
}

// A project's file may have come with a repository, and a socket of the host's be anything.
func TestASocketThatAProjectGivesToItsVMIsWarnedOf(t *testing.T) {
	const rule = minimal + "[[forward]]\nreverse = true\nguest_socket = \"/run/it\"\nhost_socket = \"/run/user/1000/it\"\n"
	c, err := config.ParseProject("shop.rum.toml", []byte(rule))
	if err != nil || len(c.Rules) != 1 || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0].Error(), "shop.rum.toml:9:1: ") || !strings.Contains(c.Warnings[0].Error(), "gives the VM this socket") {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := config.Parse("mine.toml", []byte(rule)); err != nil || len(c.Warnings) != 0 {
		t.Errorf("a file that the user named: %+v, %v", c, err)
	}
}
