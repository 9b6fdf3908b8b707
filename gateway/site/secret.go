package site

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sluice/gateway"
)

const maxSecret = 64 << 10

// secretAt is a secret of the model and its path.
type secretAt struct {
	path   string
	secret *gateway.Secret
}

// secretsOf lists the secrets of a site that are written, whether in clear or
// as a reference.
func secretsOf(s *gateway.Site) []secretAt {
	var all []secretAt
	add := func(path string, secret *gateway.Secret) {
		if *secret != "" {
			all = append(all, secretAt{path, secret})
		}
	}
	addTLS := func(path string, t *gateway.TLS) {
		if t != nil {
			add(path+".key", &t.Key)
		}
	}
	if s.Cloud.Login != nil {
		add("cloud.login.password", &s.Cloud.Login.Password)
	}
	addTLS("cloud.tls", s.Cloud.TLS)
	add("local.password", &s.Local.Password)
	for _, b := range s.Buses {
		add("buses."+b.Name+".login.password", &b.Login.Password)
		add("buses."+b.Name+".login.key", &b.Login.Key)
		addTLS("buses."+b.Name+".tls", b.TLS)
	}
	unlocked := map[*gateway.Unlock]bool{} // devices share profiles
	for _, d := range s.Devices {
		if u := d.Profile.Unlock; u != nil && !unlocked[u] {
			unlocked[u] = true
			for _, name := range slices.Sorted(maps.Keys(u.Write)) {
				add("devices."+d.Name+".unlock.write."+name, u.Write[name])
			}
		}
		if d.Login != nil {
			add("devices."+d.Name+".login.password", &d.Login.Password)
		}
	}
	return all
}

// placeSecrets notes where the references to secrets are written.
func (l *loader) placeSecrets(s *gateway.Site) {
	for _, at := range secretsOf(s) {
		if kind, _ := at.secret.Reference(); kind != "" {
			spot := l.locate(at.path)
			d := spot.src.diagnose(spot.mark(), gateway.Error, "", "")
			s.Secrets = append(s.Secrets, gateway.SecretPlace{
				Secret: at.secret, Reference: *at.secret, File: d.File, Line: d.Line, Column: d.Column, EndColumn: d.EndColumn, Source: d.Source,
			})
		}
	}
}

// OpenSecrets reads what the references of a site stand for into the model. A
// secret that can't be read is an error at the place of its reference.
func OpenSecrets(s *gateway.Site) Diagnostics {
	var diagnostics Diagnostics
	for _, at := range s.Secrets {
		content, _, err := readSecret(s, at.Reference)
		if err != nil {
			diagnostics = append(diagnostics, Diagnostic{
				File: at.File, Line: at.Line, Column: at.Column, EndColumn: at.EndColumn,
				Severity: gateway.Error, Text: err.Error(), Source: at.Source,
			})
			continue
		}
		*at.Secret = content
	}
	return diagnostics
}

// SecretStatus tells whether the secret behind a reference is there.
type SecretStatus struct {
	Reference string // as it is written
	Place     string // the file or variable it comes from
	Err       error  // why it can't be read
}

// FindSecrets looks for every secret that the site refers to, without keeping
// it.
func FindSecrets(s *gateway.Site) []SecretStatus {
	var all []SecretStatus
	seen := map[gateway.Secret]bool{}
	for _, at := range s.Secrets {
		if seen[at.Reference] {
			continue
		}
		seen[at.Reference] = true
		_, place, err := readSecret(s, at.Reference)
		all = append(all, SecretStatus{Reference: string(at.Reference), Place: place, Err: err})
	}
	return all
}

// readSecret reads what a reference stands for, without its last line break.
func readSecret(s *gateway.Site, reference gateway.Secret) (content gateway.Secret, place string, err error) {
	kind, name := reference.Reference()
	switch kind {
	case "env":
		value, ok := os.LookupEnv(name)
		if !ok || value == "" {
			return "", "$" + name, fmt.Errorf("environment variable %s is not set", name)
		}
		return gateway.Secret(value), "$" + name, nil
	case "file":
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(s.Path), name)
		}
		content, err = readSecretFile(name, false)
		return content, name, err
	}
	if name == "" || filepath.Base(name) != name || strings.HasPrefix(name, ".") {
		return "", "", fmt.Errorf("%s is no name of a secret", quote(name))
	}
	credentials := os.Getenv("CREDENTIALS_DIRECTORY")
	for _, prefix := range credentialPrefixes {
		if credentials == "" {
			break
		}
		place = filepath.Join(credentials, prefix+name)
		if content, err = readSecretFile(place, false); err == nil || !os.IsNotExist(err) {
			return content, place, err
		}
	}
	place = filepath.Join(filepath.Dir(s.Path), "secrets", name)
	content, err = readSecretFile(place, true)
	switch {
	case credentials != "" && os.IsPermission(err):
		err = fmt.Errorf("secret %s is missing in $CREDENTIALS_DIRECTORY: systemd hands over a new one when the service is restarted", quote(name))
	case os.IsNotExist(err):
		err = fmt.Errorf("secret %s is missing: neither in $CREDENTIALS_DIRECTORY nor in %s", quote(name), place)
	}
	return content, place, err
}

// credentialPrefixes are what may stand before a secret's name in
// $CREDENTIALS_DIRECTORY: nothing, or what LoadCredential=secrets:<folder>
// makes of the files of a folder.
var credentialPrefixes = []string{"", "secrets_"}

// readSecretFile reads a secret; one that others may read is refused when it
// must be private.
func readSecretFile(name string, private bool) (gateway.Secret, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular() && info.Mode()&fs.ModeNamedPipe == 0:
		return "", fmt.Errorf("%s is no file", name)
	case private && info.Mode().Perm()&0o077 != 0:
		return "", fmt.Errorf("%s can be read by others: chmod 600 %s", name, name)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch {
	case err != nil:
		return "", err
	case len(content) > maxSecret:
		return "", fmt.Errorf("%s is larger than %d kB: it is no secret", name, maxSecret>>10)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	if text == "" {
		return "", fmt.Errorf("%s is empty", name)
	}
	return gateway.Secret(text), nil
}
