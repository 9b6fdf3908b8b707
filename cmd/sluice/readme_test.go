package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sluice/gateway/site"
)

// shown elsewhere are the README's commands that another test runs, or .ci/run.
var shownElsewhere = map[string]string{
	"sluice demo":                                                           "TestDemo",
	"sluice simulate site.yaml --messages":                                  "TestSimulate",
	"sluice run --site /etc/sluice/site.yaml":                               "TestRunBringsRegistersToTheCloud",
	"sluice buffer status --site /etc/sluice/site.yaml":                     "TestBufferCommands",
	"sluice status --site /etc/sluice/site.yaml":                            "TestStatusOfARunningGateway",
	"sluice check --trace lastweek.csv site.yaml":                           "TestTraceSaysWhatWouldHaveBeenReported",
	"sluice trace rs485-1 --site /etc/sluice/site.yaml":                     "TestTraceOfABus",
	"sluice read press-3 power --site /etc/sluice/site.yaml":                "TestTheCloudWritesToTheField",
	"sluice write press-3 setpoint 35 --site /etc/sluice/site.yaml":         "TestTheCloudWritesToTheField",
	`sluice lock --reason "cabinet 3 is open" --site /etc/sluice/site.yaml`: "TestTheCloudWritesToTheField",
	"sluice audit --since 24h --json --site /etc/sluice/site.yaml":          "TestTheCloudWritesToTheField",
	"sluice bench modbus --devices 100":                                     "TestBenchModbus",
	"sluice bench buffer --dir /var/lib/sluice":                             "TestBenchBuffer",
	"sluice browse press3 /Objects --site /etc/sluice/site.yaml --yaml":     "TestBrowse",
}

// TestREADME: every command in the README works, and its site file loads.
func TestREADME(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	ci, err := os.ReadFile("../../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for _, block := range fenced(string(readme), "sh") {
		for line := range strings.Lines(block) {
			line, _, _ = strings.Cut(line, "#")
			if line = strings.TrimSpace(line); line != "" {
				commands++
				tryCommand(t, line, string(ci))
			}
		}
	}
	if commands < 4 {
		t.Errorf("found only %d commands in the README", commands)
	}
	for _, text := range fenced(string(readme), "yaml") {
		if _, found := site.Parse("README.md", []byte(text), siteOptions()); len(found) > 0 {
			found.Print(os.Stderr)
			t.Error("the README's site file has findings")
		}
	}
}

func fenced(text, language string) []string {
	var blocks []string
	for _, match := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(text, -1) {
		blocks = append(blocks, match[1])
	}
	return blocks
}

// tryCommand runs a command of ours; one of another program must be in .ci/run.
func tryCommand(t *testing.T, line, ci string) {
	line = strings.Replace(line, "go run ./cmd/sluice", "sluice", 1)
	args, ours := strings.CutPrefix(line, "sluice ")
	switch {
	case shownElsewhere[line] != "":
	case !ours:
		words := strings.Fields(line)
		if !slices.ContainsFunc(strings.Split(ci, "\n"), func(s string) bool {
			return strings.Contains(s, words[0]+" "+words[1]) && strings.Contains(s, words[len(words)-1])
		}) {
			t.Errorf("nothing runs the README's command %q", line)
		}
	default:
		root := rootCommand()
		words := strings.Fields(args)
		for i, word := range words {
			if strings.HasPrefix(word, "configs/") {
				words[i] = filepath.Join("../..", word)
			}
		}
		root.SetArgs(words)
		root.SetOut(io.Discard)
		if err := root.ExecuteContext(t.Context()); err != nil {
			t.Errorf("the README's command %q: %v", line, err)
		}
	}
}
