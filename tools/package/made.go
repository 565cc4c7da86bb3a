package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// makeFiles makes what nfpm.yaml finds in ${MADE}.
func (o order) makeFiles(made string) error {
	for _, f := range []struct {
		name, source string
		edit         func(text string) (string, error)
	}{
		{"coredns-shaker.service", "deploy/systemd/coredns.service", unit},
		{"peers.conf", "deploy/systemd/coredns.service.d/peers.conf", peersDropIn},
		{"raw.conf", "deploy/systemd/coredns.service.d/raw.conf", asItIs},
		{"coredns-shaker.7.gz", "man/coredns-shaker.7", compressed},
		{"shaker.1.gz", "man/shaker.1", compressed},
		{"CHANGELOG.md.gz", "CHANGELOG.md", compressed},
		{"changelog.gz", "", o.debianChangelog},
		{"lintian-overrides", "deploy/package/lintian-overrides", o.named},
		{"deb/preinst", "deploy/package/deb/preinst", asItIs},
		{"deb/postinst", "deploy/package/deb/postinst", o.withFunctions},
		{"deb/prerm", "deploy/package/deb/prerm", asItIs},
		{"deb/postrm", "deploy/package/deb/postrm", asItIs},
		{"rpm/post", "deploy/package/rpm/post", o.withFunctions},
		{"rpm/preun", "deploy/package/rpm/preun", asItIs},
		{"rpm/postun", "deploy/package/rpm/postun", asItIs},
	} {
		var text []byte
		if f.source != "" {
			var err error
			if text, err = os.ReadFile(filepath.Join(o.root, f.source)); err != nil {
				return err
			}
		}
		edited, err := f.edit(string(text))
		if err != nil {
			return fmt.Errorf("%s: %w", f.source, err)
		}
		path := filepath.Join(made, f.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(edited), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func asItIs(text string) (string, error) { return text, nil }

// compressed compresses with gzip as the policy of Debian wants it: at its best, and without a name or a time.
func compressed(text string) (string, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return "", err
	}
	if _, err := w.Write([]byte(text)); err != nil {
		return "", err
	}
	err = w.Close()
	return b.String(), err
}

// debianChangelog makes the changelog of the package, which has one entry.
func (o order) debianChangelog(string) (string, error) {
	return compressed(fmt.Sprintf(`%s (%s) stable; urgency=medium

  * The release v%s. Its changes are in CHANGELOG.md.gz.

 -- The shaker authors <coredns-shaker@users.noreply.github.com>  %s
`, o.name, strings.Replace(o.version, "-", "~", 1), o.version, o.time().Format(time.RFC1123Z)))
}

func (o order) named(text string) (string, error) {
	return strings.ReplaceAll(text, "NAME", o.name), nil
}

// withFunctions puts functions.sh into a script that sources it.
func (o order) withFunctions(script string) (string, error) {
	functions, err := os.ReadFile(filepath.Join(o.root, "deploy/package/functions.sh"))
	if err != nil {
		return "", err
	}
	_, code, _ := strings.Cut(string(functions), "\n\n") // without the comment on the file itself
	return replaced(script, [][2]string{{"\n. ./functions.sh\n", "\n" + code}})
}

// unit makes the unit of the packages of the one in deploy/systemd: other paths, and a user that stays.
func unit(text string) (string, error) {
	return replaced(text, [][2]string{
		{"# CoreDNS with shaker, as a service of systemd (247 or newer). How to install it is in docs/deployment.md.\n",
			"# Changes belong into a drop-in: systemctl edit coredns-shaker. Examples are in /usr/share/doc/coredns-shaker*/examples.\n"},
		{"Documentation=https://coredns.io/manual/toc/", "Documentation=man:coredns-shaker(7) https://coredns.io/manual/toc/"},
		{"/usr/local/bin/coredns -conf /etc/coredns/Corefile", "/usr/bin/coredns-shaker -conf /etc/coredns-shaker/Corefile"},
		{"For method raw see coredns.service.d/raw.conf.", "For method raw there is a drop-in."},
		{`# A user that exists while the service runs. /etc/coredns must be readable to everybody; hand it keys with
# LoadCredential=. It brings ProtectSystem=strict, ProtectHome=read-only, PrivateTmp, RemoveIPC, NoNewPrivileges and
# RestrictSUIDSGID with it, which are repeated for whoever puts User= in its place.
DynamicUser=yes
`, `# What nobody else is to read, such as keys, may be given to this group.
User=coredns-shaker
Group=coredns-shaker
`},
		{"WorkingDirectory=/etc/coredns\n", "WorkingDirectory=/etc/coredns-shaker\n"},
		{"StateDirectory=coredns\n", "StateDirectory=coredns-shaker\n"},
	})
}

// peersDropIn does without the group that a user which does not stay needs.
func peersDropIn(text string) (string, error) {
	return replaced(text, [][2]string{
		{`# The group that may read the file of keys; it has to exist. With LoadCredential= in its place, CoreDNS would have a copy from
# the start of the service, and a new key would take a restart.
SupplementaryGroups=coredns-peers
`, `# The file of keys: install -m 640 -g coredns-shaker peers.key /etc/coredns-shaker/peers.key
`},
	})
}

// replaced replaces texts by others. Each has to be there once, so that no change of the source goes unnoticed.
func replaced(text string, pairs [][2]string) (string, error) {
	for _, pair := range pairs {
		if n := strings.Count(text, pair[0]); n != 1 {
			return "", fmt.Errorf("it has %q %d times, want once: tools/package replaces it", pair[0], n)
		}
		text = strings.Replace(text, pair[0], pair[1], 1)
	}
	return text, nil
}
