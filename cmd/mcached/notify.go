package main

import (
	"fmt"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// What systemd is told, where it has started the daemon with Type=notify.
// Elsewhere these do nothing.

func notifyReady() { notify(systemd.SdNotifyReady) }

func notifyStopping() { notify(systemd.SdNotifyStopping) }

// notifyReloading is followed by notifyReady.
func notifyReloading() {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err == nil {
		notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", systemd.SdNotifyReloading, now.Nano()/1000))
	}
}

func notify(state string) {
	_, _ = systemd.SdNotify(false, state) // a manager that does not listen need not hear
}
