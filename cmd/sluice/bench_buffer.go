package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"sluice/buffer"
)

// bufferBench is a load for the buffer: 20 lanes of records of 200 bytes.
type bufferBench struct {
	dir      string
	size     int64 // MB
	duration time.Duration
}

const (
	benchLanes  = 20
	benchRecord = 200
)

func benchBufferCommand() *cobra.Command {
	var b bufferBench
	cmd := &cobra.Command{
		Use:   "buffer",
		Short: "Measure the buffer file: append, drain, cold open, memory",
		Long: `Buffer fills a buffer file with records of 200 bytes in 20 lanes and drains it.
Every commit is synced to the disk twice, so that a disk that is slow to sync is
slow to append to: the first line says what this disk allows. What is written is
counted by the kernel, once as handed to files and once as sent to the disk; some
kernels count what they keep together (large folios), and so more than they send.
Memory is RssAnon, in a process of its own, which leaves out the mapped pages of
the file. The folder is that of temporary files unless --dir names another: what
counts is the disk that it is on.`,
		Example: `  sluice bench buffer
  sluice bench buffer --dir /var/lib/sluice --size 64`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return b.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	cmd.Flags().StringVar(&b.dir, "dir", "", "folder for the file")
	cmd.Flags().Int64Var(&b.size, "size", 512, "size of the full file in MB")
	cmd.Flags().DurationVar(&b.duration, "for", 5*time.Second, "time to measure each way of appending")
	waiting := &cobra.Command{
		Use:    "waiting FILE",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE:   func(cmd *cobra.Command, args []string) error { return b.waiting(cmd.OutOrStdout(), args[0]) },
	}
	waiting.Flags().Int64Var(&b.size, "size", 512, "")
	cmd.AddCommand(waiting)
	return cmd
}

func (b *bufferBench) run(ctx context.Context, out io.Writer) error {
	if b.size < 8 || b.duration < 100*time.Millisecond {
		return errors.New("bench buffer takes --size 8 (MB) or more and --for 100ms or more")
	}
	dir, err := os.MkdirTemp(b.dir, "sluice-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := syncsOf(filepath.Join(dir, "disk"), out); err != nil {
		return err
	}
	for _, group := range []int{100, 1000} {
		if err := b.append(ctx, out, filepath.Join(dir, strconv.Itoa(group)), group); err != nil {
			return err
		}
	}
	return b.full(ctx, out, filepath.Join(dir, "full"))
}

// syncsOf measures what the disk allows: the writes of a commit of 100 records, synced as a commit is.
func syncsOf(path string, out io.Writer) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data := make([]byte, 44<<10)
	n, begin := 0, time.Now()
	for ; time.Since(begin) < time.Second; n++ {
		_, err := f.WriteAt(data, int64(n*len(data))+8192)
		_, headErr := f.WriteAt(data[:4096], 0)
		if err = errors.Join(err, f.Sync(), headErr, f.Sync()); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "disk    %10.0f commits of 100 records/s, if they cost nothing but their two syncs\n", float64(n)/time.Since(begin).Seconds())
	return nil
}

func (b *bufferBench) open(path string) (*buffer.Buffer, error) {
	return buffer.Open(path, buffer.Options{MaxSize: b.size << 20, Flush: time.Hour})
}

// write appends records in commits of so many until done says so, and gives the number of records and how long each commit took.
func (b *bufferBench) write(ctx context.Context, store *buffer.Buffer, group int, done func(commits int) bool) (records int, took []time.Duration, err error) {
	data := make([]byte, benchRecord)
	for !done(len(took)) {
		for range group {
			store.Append(strconv.Itoa(records%benchLanes), buffer.Attributes, time.Now(), data)
			records++
		}
		begin := time.Now()
		if err := store.Sync(ctx); err != nil {
			return records, took, err
		}
		took = append(took, time.Since(begin))
	}
	return records, took, nil
}

// append measures commits of one size: in a new file, and once more in pages that were written before, as they are in a file that has been in use.
func (b *bufferBench) append(ctx context.Context, out io.Writer, path string, group int) error {
	store, err := b.open(path)
	if err != nil {
		return err
	}
	defer store.Close()
	for _, pages := range []string{"new", "used"} {
		handed, sent := writtenSoFar()
		begin := time.Now()
		n, _, err := b.write(ctx, store, group, func(int) bool { return time.Since(begin) > b.duration || store.Stats().Dropped.Full > 0 })
		if err != nil {
			return err
		}
		rate := float64(n) / time.Since(begin).Seconds()
		handedAfter, sentAfter := writtenSoFar()
		bytes := float64(n * benchRecord)
		fmt.Fprintf(out, "append  %10.0f records/s at %d a commit to %s pages, %.2f bytes to the file and %.2f to the disk for each of their bytes\n",
			rate, group, pages, float64(handedAfter-handed)/bytes, float64(sentAfter-sent)/bytes)
		if err := errors.Join(drainAll(store), store.Sync(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// writtenSoFar is what this process has handed to files, and what the kernel counts as sent to disks for it; 0 where it doesn't say.
func writtenSoFar() (handed, sent int64) {
	data, _ := os.ReadFile("/proc/self/io")
	for line := range strings.Lines(string(data)) {
		_, _ = fmt.Sscanf(line, "wchar: %d", &handed)
		_, _ = fmt.Sscanf(line, "write_bytes: %d", &sent)
	}
	return handed, sent
}

// full fills a file, opens it cold, and drains it.
func (b *bufferBench) full(ctx context.Context, out io.Writer, path string) error {
	store, err := b.open(path)
	if err != nil {
		return err
	}
	defer func() { store.Close() }()
	const commits = 200
	_, before, err := b.write(ctx, store, 100, func(n int) bool { return n == commits })
	if err == nil {
		_, _, err = b.write(ctx, store, 10_000, func(int) bool { return store.Stats().Dropped.Full > 0 })
	}
	if err = errors.Join(err, store.Close()); err != nil {
		return err
	}
	if err := b.memory(ctx, out, path); err != nil {
		return err
	}
	if err := dropCache(path); err != nil {
		return fmt.Errorf("make %s cold: %w", path, err)
	}
	begin := time.Now()
	if store, err = b.open(path); err != nil {
		return err
	}
	stats := store.Stats()
	fmt.Fprintf(out, "open    %10.2f s, cold, a full file of %d MB\n", time.Since(begin).Seconds(), stats.FileSize>>20)
	begin = time.Now()
	if err := drainAll(store); err != nil {
		return err
	}
	fmt.Fprintf(out, "drain   %10.0f records/s from %d lanes\n", float64(stats.Waiting)/time.Since(begin).Seconds(), benchLanes)
	if err := store.Sync(ctx); err != nil {
		return err
	}
	_, after, err := b.write(ctx, store, 100, func(n int) bool { return n == commits })
	if err != nil {
		return err
	}
	slices.Sort(before)
	slices.Sort(after)
	fmt.Fprintf(out, "commit  %10s for 100 records in a new file, %s after the backlog was drained\n", before[commits/2].Round(time.Microsecond), after[commits/2].Round(time.Microsecond))
	return nil
}

// drainAll reads and confirms everything, each lane with a consumer of its own.
func drainAll(store *buffer.Buffer) error {
	var wait sync.WaitGroup
	errs := make([]error, benchLanes)
	for i := range benchLanes {
		wait.Go(func() {
			lane := strconv.Itoa(i)
			for {
				records, err := store.Peek(lane, 1000)
				if len(records) == 0 {
					errs[i] = err
					return
				}
				store.Ack(lane, records[len(records)-1].Seq)
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// memory runs this program a second time on the full file.
func (b *bufferBench) memory(ctx context.Context, out io.Writer, path string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	child := exec.CommandContext(ctx, self, "bench", "buffer", "waiting", path, fmt.Sprintf("--size=%d", b.size))
	child.Stdout, child.Stderr = out, os.Stderr
	return child.Run()
}

// waiting is the second process: a gateway's work with a long backlog, some records come and some are looked at.
func (b *bufferBench) waiting(out io.Writer, path string) error {
	store, err := b.open(path)
	if err != nil {
		return err
	}
	n := store.Stats().Waiting
	_, _, err = b.write(context.Background(), store, 100, func(commits int) bool { return commits == 10 })
	for i := range benchLanes {
		_, peekErr := store.Peek(strconv.Itoa(i), 100)
		err = errors.Join(err, peekErr)
	}
	fmt.Fprintf(out, "memory  %10s not file pages, with %d records waiting\n", memory("RssAnon"), n)
	return errors.Join(err, store.Close())
}
