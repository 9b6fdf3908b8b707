package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"sluice/adapters/sim"
	"sluice/gateway"
	"sluice/gateway/cloud/twin"
)

// browser opens a headless Chromium of the size of a panel PC. A message on
// its console fails the test: the page's policy tells there what it stopped.
func browser(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil && path == "" {
			path = found
		}
	}
	if path == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("chromium is missing")
		}
		t.Skip("chromium is missing")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WindowSize(1280, 800))
	ctx, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	ctx, end := chromedp.NewContext(ctx, chromedp.WithErrorf(t.Logf)) // it does not know all events of a newer Chromium
	t.Cleanup(end)
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	t.Cleanup(cancel)
	chromedp.ListenTarget(ctx, func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			t.Errorf("the page threw: %s", e.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.APITypeError {
				t.Errorf("the page complains: %v", e.Args)
			}
		}
	})
	return ctx
}

// do runs steps in the browser.
func do(t *testing.T, ctx context.Context, what string, actions ...chromedp.Action) {
	t.Helper()
	if err := chromedp.Run(ctx, actions...); err != nil {
		var text string
		_ = chromedp.Run(ctx, chromedp.Evaluate(`document.body.innerText`, &text))
		t.Fatalf("%s: %v; the page says:\n%s", what, err, text)
	}
}

// until waits for an expression of JavaScript to hold.
func until(expression string) chromedp.Action {
	return chromedp.Poll("!!("+expression+")", nil, chromedp.WithPollingTimeout(15*time.Second), chromedp.WithPollingInterval(100*time.Millisecond))
}

// localAddress is a free one for a page.
func localAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// newPage is a plant with a page that the browser can open.
func newPage(t *testing.T) (ctx context.Context, p *plant, address string) {
	t.Helper()
	ctx, p, address = browser(t), newPlant(t), localAddress(t)
	p.configure(t, "local: { http: none }", "local: { http: "+address+" }")
	return ctx, p, address
}

// TestPageShowsTheField: values move, an outage shows and ends.
func TestPageShowsTheField(t *testing.T) {
	ctx, p, address := newPage(t)
	p.set(t, "a", "speed", gateway.UintValue(1450))
	runPlant(t, p)
	const speed = `document.querySelector('[data-point="a/speed"] .value')?.textContent`
	do(t, ctx, "overview", chromedp.Navigate("http://"+address+"/"), until(`document.querySelector('#verdict')?.textContent.includes('all is well')`))
	do(t, ctx, "buses and devices", until(`document.querySelectorAll('[data-bus]').length == 2 && document.querySelectorAll('[data-device]').length == 2`))
	do(t, ctx, "points", chromedp.Click(`.tabs a[href="#/points"]`), until(speed+` == '1450rpm'`))
	p.set(t, "a", "speed", gateway.UintValue(1451))
	do(t, ctx, "a value moves", until(speed+` == '1451rpm'`))
	do(t, ctx, "what was sent", chromedp.Click("#raw"), until(`document.querySelector('[data-point="a/speed"] .raw')?.textContent == '0x05AB'`), chromedp.Click("#raw"))
	do(t, ctx, "trend", chromedp.Click(`[data-point="a/speed"]`), until(`document.querySelector('.detail .u-over') && document.querySelector('.detail .big').textContent.includes('1451')`),
		until(`document.querySelector('.facts code')?.textContent == '0x05AB'`))

	if err := p.sim.StopBus("rtu"); err != nil {
		t.Fatal(err)
	}
	do(t, ctx, "an outage", until(`document.querySelector('#verdict').textContent.includes('needs attention') || document.querySelector('#verdict').textContent.includes('need attention')`),
		chromedp.Click(`.tabs a[href="#/"]`), until(`document.querySelector('[data-bus=rtu] .says.bad')?.textContent.length > 5`),
		until(`document.querySelector('[data-bus=tcp] .shape.good')`))
	if err := p.sim.StartBus("rtu"); err != nil {
		t.Fatal(err)
	}
	do(t, ctx, "its end", until(`document.querySelector('#verdict').textContent.includes('all is well')`))

	p.twin.Stop()
	do(t, ctx, "the cloud goes", chromedp.Click(`.tabs a[href="#/cloud"]`), until(`document.querySelector('[data-user=own] .shape.bad') && document.querySelector('[data-user=own] .says.bad')`))
	if err := p.twin.Restart(); err != nil {
		t.Fatal(err)
	}
	do(t, ctx, "the cloud is back", until(`document.querySelector('[data-user=own] .shape.good')`))
}

// TestPageWrites: what is out of limits is refused, what was confirmed is
// written and read back, and both stand in the audit.
func TestPageWrites(t *testing.T) {
	ctx := browser(t)
	p := newPlant(t)
	address := localAddress(t)
	p.configure(t, "local: { http: none }", "local: { http: "+address+", write_test: true }")
	p.configure(t, "unit: rpm }", "unit: rpm, access: rw, min: 0, max: 1500 }")
	p.set(t, "a", "speed", gateway.UintValue(100))
	runPlant(t, p)
	const result = `document.querySelector('#write-result')?.textContent`
	do(t, ctx, "the point", chromedp.Navigate("http://"+address+"/#/points"), chromedp.Click(`[data-point="a/speed"]`),
		chromedp.SendKeys(".write input", "9000"), chromedp.Click(".write-line button"), until(`document.querySelector('dialog[open]').textContent.includes('speed of a becomes 9000 rpm')`))
	do(t, ctx, "a refusal", chromedp.Click("#write-confirm"), until(result+`?.includes('refused') && `+result+`.includes('max 1500')`))
	if v, err := p.sim.Get("a", "speed"); err != nil || v.String() != "100" {
		t.Errorf("after the refusal the device has %v, %v", v, err)
	}
	do(t, ctx, "a write", chromedp.Evaluate(`document.querySelector('.write input').select()`, nil), chromedp.SendKeys(".write input", "900"), chromedp.Click(".write-line button"), chromedp.Click("#write-confirm"),
		until(result+`?.includes('done') && `+result+`.includes('900')`), until(`document.querySelector('.detail .big').textContent.startsWith('900')`))
	if v, err := p.sim.Get("a", "speed"); err != nil || v.String() != "900" {
		t.Errorf("after the write the device has %v, %v", v, err)
	}
	do(t, ctx, "the audit", chromedp.Navigate("http://"+address+"/#/audit"), until(`[...document.querySelectorAll('.line')].map((l) => l.textContent).join('|').match(/speed done.*page.*speed refused.*page/)`))
}

// TestPageShowsLocks: each lock is told on every screen, with when, who and why,
// until it is taken away, and both stand in the audit.
func TestPageShowsLocks(t *testing.T) {
	ctx, p, address := newPage(t)
	runPlant(t, p)
	const all, one = `document.querySelector('[data-lock=all]')?.textContent`, `document.querySelector('[data-lock=a]')?.textContent`
	do(t, ctx, "no lock", chromedp.Navigate("http://"+address+"/"), until(`document.querySelector('#verdict')`), until(`!document.querySelector('[data-lock]')`))
	for _, words := range [][]string{{"lock", "--reason", "cabinet 3 is open"}, {"lock", "a", "--reason", "<b>belt</b> off"}} {
		if _, _, err := execute(t, append(words, "--site", p.path)...); err != nil {
			t.Fatal(err)
		}
	}
	do(t, ctx, "both locks", until(all+`?.match(/The field is locked: nothing is written to any device – cabinet 3 is open.*since.*by command line/s)`), until(one+`?.includes('a is locked: nothing is written to it – <b>belt</b> off')`))
	screenshot(t, ctx, "locks")
	do(t, ctx, "on each screen", chromedp.Navigate("http://"+address+"/#/audit"), until(all),
		until(`[...document.querySelectorAll('.line')].map((l) => l.textContent).join('|').match(/lock done.*belt.*lock done.*cabinet 3 is open/)`))
	screenshot(t, ctx, "audit")
	for _, words := range [][]string{{"unlock"}, {"unlock", "a"}} {
		if _, _, err := execute(t, append(words, "--site", p.path)...); err != nil {
			t.Fatal(err)
		}
	}
	do(t, ctx, "no lock again", until(`!document.querySelector('[data-lock]')`))
}

// TestPageOnAPhone: on the smallest one no value is cut off, and no screen is
// wider than it.
func TestPageOnAPhone(t *testing.T) {
	ctx, p, address := newPage(t)
	p.configure(t, "unit: rpm }", "unit: revolutions/min }")
	p.set(t, "a", "speed", gateway.UintValue(12450))
	runPlant(t, p)
	const whole = `(v => v && v.textContent.startsWith('12450') && v.scrollWidth <= v.clientWidth && v.scrollHeight <= v.clientHeight + 1)(document.querySelector('[data-point="a/speed"] .value'))`
	do(t, ctx, "a value", chromedp.EmulateViewport(360, 640), chromedp.Navigate("http://"+address+"/#/points"), until(whole))
	screenshot(t, ctx, "phone")
	for _, screen := range []string{"", "cloud", "events", "audit", "site"} {
		do(t, ctx, "screen "+screen, chromedp.Evaluate(`location.hash = '#/`+screen+`'`, nil), until(`document.querySelector('.bar a[aria-current]').hash == '#/`+screen+`' && document.querySelector('main .card') && document.documentElement.scrollWidth <= 360`))
	}
}

// mostStreams is how many pages the gateway feeds.
const mostStreams = 16

// openStreams opens some, all of which the gateway must have left.
func openStreams(t *testing.T, address string, n int) (closeAll func()) {
	t.Helper()
	var bodies []io.Closer
	closeAll = func() {
		for _, b := range bodies {
			b.Close()
		}
	}
	t.Cleanup(closeAll)
	for range n {
		eventually(t, func() error { // one that a page has left is noticed a moment later
			answer, err := http.Get("http://" + address + "/api/stream")
			if err != nil {
				return err
			}
			if answer.StatusCode != http.StatusOK {
				answer.Body.Close()
				return fmt.Errorf("stream %d of %d: %s", len(bodies)+1, n, answer.Status)
			}
			bodies = append(bodies, answer.Body)
			return nil
		})
	}
	return closeAll
}

// TestPageGivesItsStreamBack: a page that is left, by whatever way, holds no
// stream; one that finds none left says so, and goes on when there is one.
func TestPageGivesItsStreamBack(t *testing.T) {
	ctx, p, address := newPage(t)
	runPlant(t, p)
	const well = `document.querySelector('#verdict')?.textContent.includes('all is well')`
	for i := range 7 { // a browser opens six connections to a server at most
		do(t, ctx, fmt.Sprintf("visit %d", i), chromedp.Navigate(fmt.Sprintf("http://%s/?visit=%d", address, i)), until(well))
	}
	do(t, ctx, "left", chromedp.Navigate("about:blank"))
	closeAll := openStreams(t, address, mostStreams)
	do(t, ctx, "one too many", chromedp.Navigate("http://"+address+"/"), until(`document.body.innerText.includes('the page is open in too many windows')`))
	screenshot(t, ctx, "too-many")
	closeAll()
	do(t, ctx, "one is left again", until(well))
}

// TestPageThatNobodySees: it does not come back by itself when the gateway does,
// but when somebody looks.
func TestPageThatNobodySees(t *testing.T) {
	ctx, p, address := newPage(t)
	s, err := loadSite(p.path)
	if err != nil {
		t.Fatal(err)
	}
	stop := serveSite(t, s)
	const live = `document.querySelector('#verdict') && !document.querySelector('.lost')`
	const hide = `Object.defineProperty(document, 'hidden', { configurable: true, get: () => %t }); document.dispatchEvent(new Event('visibilitychange'))`
	do(t, ctx, "the page", chromedp.Navigate("http://"+address+"/"), until(live), chromedp.Evaluate(fmt.Sprintf(hide, true), nil))
	stop()
	do(t, ctx, "the gateway goes", until(`document.querySelector('.lost')`))
	runPlant(t, p)
	closeAll := openStreams(t, address, mostStreams-1)
	do(t, ctx, "a page tries again every two seconds", chromedp.Sleep(2500*time.Millisecond))
	openStreams(t, address, 1)
	closeAll()
	do(t, ctx, "somebody looks", chromedp.Evaluate(fmt.Sprintf(hide, false), nil), until(live))
}

// screenshot keeps what the browser shows, for people: in $SLUICE_SCREENSHOTS.
func screenshot(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	dir := os.Getenv("SLUICE_SCREENSHOTS")
	if dir == "" {
		return
	}
	var png []byte
	do(t, ctx, "screenshot", chromedp.CaptureScreenshot(&png))
	write(t, filepath.Join(dir, name+".png"), string(png))
}

// TestPageStaysSmoothWith5000Points: every value changes each second, and that
// and a scroll through all of them leave the page's thread time to spare.
func TestPageStaysSmoothWith5000Points(t *testing.T) {
	ctx := browser(t)
	address := localAddress(t)
	s := manyPoints(t, address)
	serveSite(t, s)

	do(t, ctx, "points", chromedp.Navigate("http://"+address+"/#/points"), until(`document.querySelector('.tools .aside')?.textContent.replace(/\D/g,'') == '5000'`),
		until(`document.querySelectorAll('.row.good').length > 10`))
	var rows int
	var wall struct{ Worst, Frames, Average float64 }
	before := mainThread(t, ctx)
	do(t, ctx, "a second of ticks", chromedp.Sleep(5*time.Second))
	ticks := mainThread(t, ctx) - before
	do(t, ctx, "a scroll", chromedp.Evaluate(`document.querySelectorAll('.row').length`, &rows), chromedp.Evaluate(scrollThrough, &wall, func(p *runtime.EvaluateParams) *runtime.EvaluateParams {
		return p.WithAwaitPromise(true)
	}))
	frame := (mainThread(t, ctx) - before - ticks) / time.Duration(max(1, wall.Frames))
	t.Logf("%d rows exist; live values take %v of the page's thread a second; a frame of a scroll through all takes %v of it, drawn every %.0f ms here, at worst after %.0f ms",
		rows, ticks/5, frame, wall.Average, wall.Worst)
	// Processor time: a CI machine draws without a graphics card, and beside other tests.
	if rows > 80 || ticks/5 > 100*time.Millisecond || frame > 60*time.Millisecond {
		t.Error("the page stutters")
	}
	do(t, ctx, "a filter", chromedp.SendKeys("#filter", "d3 p123"), until(`document.querySelector('.tools .aside').textContent.startsWith('1 of')`))
}

// mainThread is the processor time that the page's thread has taken.
func mainThread(t *testing.T, ctx context.Context) (took time.Duration) {
	t.Helper()
	do(t, ctx, "measure", chromedp.ActionFunc(func(ctx context.Context) error {
		if err := performance.Enable().WithTimeDomain(performance.EnableTimeDomainThreadTicks).Do(ctx); err != nil {
			return err
		}
		metrics, err := performance.GetMetrics().Do(ctx)
		for _, m := range metrics {
			if m.Name == "TaskDuration" {
				took = time.Duration(m.Value * float64(time.Second))
			}
		}
		return err
	}))
	return took
}

// scrollThrough scrolls through the list for three seconds and measures the
// time between frames.
const scrollThrough = `new Promise((done) => {
  const start = performance.now(), gaps = [];
  let last = start;
  const frame = (t) => {
    gaps.push(t - last); last = t;
    const part = (t - start) / 3000;
    if (part < 1) { scrollTo(0, part * document.documentElement.scrollHeight); requestAnimationFrame(frame); return; }
    gaps.splice(0, 2);
    done({ Worst: Math.max(...gaps), Frames: gaps.length, Average: gaps.reduce((a, b) => a + b, 0) / gaps.length });
  };
  requestAnimationFrame(frame);
})`

// manyPoints is a site of five simulated devices with 1,000 points each, whose
// values change with each poll.
func manyPoints(t *testing.T, address string) *gateway.Site {
	t.Helper()
	platform, err := twin.Start(twin.Options{Users: map[string]string{"bench": "bench"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(platform.Stop)
	b := &modbusBench{devices: 5, registers: 1000, poll: time.Second, pipeline: 1}
	path := filepath.Join(t.TempDir(), "site.yaml")
	write(t, path, strings.Replace(string(b.site()), "http: none", "http: "+address, 1))
	s := testSite(t, path)
	s.Cloud.URL = platform.URL()
	_, simulated := startField(t, s, sim.Options{Seed: 1})
	return simulated
}

// configure changes the plant's site file.
func (p *plant) configure(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(content), from) {
		t.Fatal(fmt.Errorf("no %q in the site file", from))
	}
	write(t, p.path, strings.ReplaceAll(string(content), from, to))
}
