package buffer

import "time"

const turnEvery = 5 * time.Second // the longest that the idle goroutine sleeps

// Turned tells whether the buffer's goroutine has come round since the last call, for a watchdog. A buffer whose disk fails turns as
// well, and so does one that waits for its disk: ending the process would cost what is in memory, and mend no disk.
func (b *Buffer) Turned() bool { return b.turned.Swap(false) || b.onDisk.Load() > 0 }
