// The copy loop of containerd's shim, as its main branch compiles it, with nothing around it.
//
// One goroutine a stream and io.CopyBuffer between plain *os.File, with the shim's pooled
// buffer, its two threads and its GC percentage.  Prints what it cost as one line of JSON.
//
//	peer -stdout PATH [-file] [-stdin FIFO] -- COMMAND...
//	peer -log json-file|cri PATH, as a logging binary: see lines.go
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
)

var buffers = sync.Pool{New: func() any {
	buffer := make([]byte, 32<<10)
	return &buffer
}}

func main() {
	runtime.GOMAXPROCS(2)
	debug.SetGCPercent(40)
	stdout := flag.String("stdout", "", "the FIFO or file that gets the output")
	file := flag.Bool("file", false, "it is a file to append to")
	stdin := flag.String("stdin", "", "a FIFO for the input")
	format := flag.String("log", "", "what to write of the lines in descriptor 3")
	flag.Parse()
	if *format != "" {
		logger(*format, flag.Arg(0))
		return
	}

	child := exec.Command(flag.Arg(0), flag.Args()[1:]...)
	read, write, err := os.Pipe()
	check(err)
	child.Stdout = write
	sink, keep := open(*stdout, *file)
	var input, source *os.File
	if *stdin != "" {
		var end *os.File
		end, input, err = os.Pipe()
		check(err)
		child.Stdin = end
		source, err = os.OpenFile(*stdin, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		check(err)
	}

	cpu, begin := used(), time.Now()
	check(child.Start())
	write.Close()
	if source != nil {
		child.Stdin.(*os.File).Close()
		go func() {
			pump(input, source)
			input.Close()
		}()
	}
	var streams sync.WaitGroup
	streams.Add(1)
	var bytes int64
	go func() {
		defer streams.Done()
		bytes = pump(sink, read)
	}()
	check(child.Wait())
	streams.Wait()
	seconds := time.Since(begin).Seconds()
	cpu = used() - cpu
	sink.Close()
	if keep != nil {
		keep.Close()
	}
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"cpu": cpu, "seconds": seconds, "bytes": bytes, "version": runtime.Version(),
	}))
}

func open(path string, file bool) (sink, keep *os.File) {
	var err error
	if file {
		sink, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		check(err)
		return sink, nil
	}
	sink, err = os.OpenFile(path, os.O_WRONLY, 0)
	check(err)
	keep, err = os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	check(err)
	return sink, keep
}

func pump(sink io.Writer, source io.Reader) int64 {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	count, err := io.CopyBuffer(sink, source, *buffer)
	check(err)
	return count
}

func used() float64 {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return seconds(usage.Utime) + seconds(usage.Stime)
}

func seconds(time syscall.Timeval) float64 {
	return float64(time.Sec) + float64(time.Usec)/1e6
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}
