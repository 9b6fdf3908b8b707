package site

import (
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"sluice/gateway"
)

// Conceal makes the text of a site file, or of one of its profile files, fit to
// be shown: passwords in clear become asterisks. s is the loaded site, with its
// secrets not opened; nil where it does not load.
func Conceal(text string, s *gateway.Site) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = hide(line)
	}
	text = strings.Join(lines, "\n")
	if s == nil {
		return text
	}
	clear := Secrets(s)
	slices.SortFunc(clear, func(a, b string) int { return len(b) - len(a) }) // the longer one first, which may hold another
	for _, secret := range slices.Compact(clear) {
		text = withoutWord(text, secret)
	}
	return text
}

// withoutWord hides a word, wherever it stands by itself.
func withoutWord(text, word string) string {
	stars := strings.Repeat("*", utf8.RuneCountInString(word))
	pattern := regexp.MustCompile(`(^|[^\pL\pN_])` + regexp.QuoteMeta(word) + `($|[^\pL\pN_])`)
	for before := ""; before != text; { // neighbours share what stands between them
		before = text
		text = pattern.ReplaceAllString(text, "${1}"+strings.ReplaceAll(stars, "$", "$$")+"${2}")
	}
	return text
}

// Secrets are the passwords and keys of a site: those in clear, and those of
// the references that were opened.
func Secrets(s *gateway.Site) []string {
	var all []string
	for _, at := range secretsOf(s) {
		if kind, _ := at.secret.Reference(); kind == "" {
			all = append(all, string(*at.secret))
		}
	}
	return all
}
