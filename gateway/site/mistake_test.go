package site_test

import (
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/adapters/modbus"
	"sluice/configs"
	"sluice/gateway/site"
)

var update = flag.Bool("update", false, "write the expected diagnostics anew")

func options(t testing.TB) site.Options {
	t.Helper()
	builtin, err := fs.Sub(configs.FS, "profiles")
	if err != nil {
		t.Fatal(err)
	}
	return site.Options{Checks: map[string]site.Check{"modbus": modbus.Check}, Builtin: builtin}
}

// Each file in testdata/mistakes has one mistake of an engineer; beside it is
// all that the loader says.
func TestMistakesAreExplained(t *testing.T) {
	files, err := filepath.Glob("testdata/mistakes/*.yaml")
	if err != nil || len(files) < 60 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, diagnostics := site.Parse("testdata/mistakes/site.yaml", content, options(t))
			var got strings.Builder
			diagnostics.Print(&got)
			text := strings.ReplaceAll(got.String(), "testdata/mistakes/", "")
			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if text != string(want) {
				t.Errorf("got\n%s\nwant\n%s", text, want)
			}
			if text == "" {
				t.Error("the mistake is not found")
			}
		})
	}
}
