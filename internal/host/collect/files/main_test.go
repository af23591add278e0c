package files

import (
	"os"
	"runtime"
	"testing"
)

// init keeps the main goroutine on the main thread, so that no test moves that
// thread, and with it the process as others see it, into a namespace of the lab.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) { os.Exit(m.Run()) }
