package buffer

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	bolt "go.etcd.io/bbolt"
)

const benchSize = 200

// written is what bbolt has handed to the file: the pages of each transaction and its meta page.
func written(b *Buffer) float64 {
	page := float64(b.db.Info().PageSize)
	stats := b.db.Stats().TxStats
	return float64(stats.GetPageAlloc()) + float64(b.Stats().Commits)*page
}

// diskWritten is what the kernel has sent to the disk for this process, where it says so.
func diskWritten() (bytes float64) {
	data, _ := os.ReadFile("/proc/self/io")
	var name string
	for _, line := range strings.Split(string(data), "\n") {
		var v float64
		if n, _ := fmt.Sscan(line, &name, &v); n == 2 && name == "write_bytes:" {
			bytes = v
		}
	}
	return bytes
}

func BenchmarkAppend(bench *testing.B) {
	for _, lanes := range []int{1, 20} {
		for _, group := range []int{100, 1000} {
			bench.Run(fmt.Sprintf("lanes=%d/commit=%d", lanes, group), func(bench *testing.B) { benchAppend(bench, lanes, group) })
		}
	}
}

func benchAppend(bench *testing.B, lanes, group int) {
	b := open(bench, newPath(bench), Options{MaxSize: 1 << 30})
	names := make([]string, lanes)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	data := make([]byte, benchSize)
	pages, disk := written(b), diskWritten()
	n := 0
	for bench.Loop() {
		b.Append(names[n%lanes], Attributes, noon, data)
		if n++; n%group == 0 {
			syncNow(bench, b)
		}
	}
	syncNow(bench, b)
	bench.ReportMetric((written(b)-pages)/float64(n*benchSize), "written/byte")
	bench.ReportMetric((diskWritten()-disk)/float64(n*benchSize), "disk/byte")
	bench.ReportMetric(float64(n)/bench.Elapsed().Seconds(), "records/s")
}

// BenchmarkFloor is what the disk allows: the same records in bbolt alone, and the writes and syncs of such a commit without it.
func BenchmarkFloor(bench *testing.B) {
	const group = 100
	bench.Run("bbolt", func(bench *testing.B) {
		b := open(bench, newPath(bench), Options{MaxSize: 1 << 30})
		b.writer.Lock()
		defer b.writer.Unlock()
		value, n := make([]byte, headerSize+benchSize), uint64(0)
		for bench.Loop() {
			err := b.db.Update(func(tx *bolt.Tx) error {
				for range group {
					seg, err := openSegment(tx.Bucket(segmentsBucket), n>>segmentBits)
					if err == nil {
						err = seg.Put(key(n), value)
					}
					if err != nil {
						return err
					}
					n++
				}
				return nil
			})
			if err != nil {
				bench.Fatal(err)
			}
		}
		bench.ReportMetric(float64(n)/bench.Elapsed().Seconds(), "records/s")
	})
	bench.Run("fsync", func(bench *testing.B) {
		f, err := os.Create(newPath(bench))
		if err != nil {
			bench.Fatal(err)
		}
		defer f.Close()
		page := os.Getpagesize()
		data, at, n := make([]byte, 11*page), int64(2*page), 0
		for bench.Loop() { // the pages of a commit, and the head that makes them valid
			_, err := f.WriteAt(data, at)
			err = errors.Join(err, syscall.Fdatasync(int(f.Fd())))
			_, headErr := f.WriteAt(data[:page], 0)
			if err = errors.Join(err, headErr, syscall.Fdatasync(int(f.Fd()))); err != nil {
				bench.Fatal(err)
			}
			at += int64(len(data))
			n += group
		}
		bench.ReportMetric(float64(n)/bench.Elapsed().Seconds(), "records/s")
	})
}

// BenchmarkAppendInMemory is a healthy line: everything is confirmed before it is written.
func BenchmarkAppendInMemory(bench *testing.B) {
	b := open(bench, newPath(bench), Options{})
	data := make([]byte, benchSize)
	for bench.Loop() {
		b.Ack("l", b.Append("l", Attributes, noon, data))
	}
}

func fill(tb testing.TB, b *Buffer, lanes, n int) {
	data := make([]byte, benchSize)
	for i := range n {
		b.Append(fmt.Sprint(i%lanes), Attributes, noon, data)
		if i%10000 == 0 {
			syncNow(tb, b)
		}
	}
	syncNow(tb, b)
}

func consume(tb testing.TB, b *Buffer, lane string) {
	for {
		got, err := b.Peek(lane, 1000)
		if err != nil {
			tb.Error(err)
		}
		if len(got) == 0 {
			return
		}
		b.Ack(lane, got[len(got)-1].Seq)
	}
}

func BenchmarkDrain(bench *testing.B) {
	for _, lanes := range []int{1, 20} {
		bench.Run(fmt.Sprintf("lanes=%d", lanes), func(bench *testing.B) {
			const backlog = 400_000
			records := 0
			for bench.Loop() {
				bench.StopTimer()
				b := open(bench, newPath(bench), Options{MaxSize: 1 << 30})
				fill(bench, b, lanes, backlog)
				bench.StartTimer()
				var all sync.WaitGroup
				for lane := range lanes { // each has a consumer of its own
					all.Go(func() { consume(bench, b, fmt.Sprint(lane)) })
				}
				all.Wait()
				syncNow(bench, b)
				records += backlog
				bench.StopTimer()
				closeNow(bench, b)
				bench.StartTimer()
			}
			bench.ReportMetric(float64(records)/bench.Elapsed().Seconds(), "records/s")
		})
	}
}

func BenchmarkPeekSameHead(bench *testing.B) {
	b := open(bench, newPath(bench), Options{})
	fill(bench, b, 1, 10000)
	bench.ReportAllocs()
	for bench.Loop() {
		peek(bench, b, "0", 10)
	}
}

// BenchmarkCommit compares a commit of 100 records in a new file with one after a large backlog was drained.
func BenchmarkCommit(bench *testing.B) {
	for _, backlog := range []int{0, 1_000_000} {
		bench.Run(fmt.Sprintf("drained=%d", backlog), func(bench *testing.B) {
			b := open(bench, newPath(bench), Options{MaxSize: 1 << 30})
			fill(bench, b, 1, backlog)
			b.Ack("0", 1<<62)
			syncNow(bench, b)
			data := make([]byte, benchSize)
			before, n := written(b), 0
			for bench.Loop() {
				for range 100 {
					b.Append("0", Attributes, noon, data)
				}
				syncNow(bench, b)
				b.Ack("0", 1<<62)
				n++
			}
			bench.ReportMetric((written(b)-before)/float64(n), "bytes/commit")
		})
	}
}

func BenchmarkOpen(bench *testing.B) {
	path := newPath(bench)
	b := open(bench, path, Options{MaxSize: 1 << 30})
	fill(bench, b, 20, 1_000_000)
	closeNow(bench, b)
	for bench.Loop() {
		b := open(bench, path, Options{MaxSize: 1 << 30})
		bench.StopTimer()
		closeNow(bench, b)
		bench.StartTimer()
	}
}
