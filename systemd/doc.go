// Package systemd holds what makes sluice a service of a Linux machine: the
// unit and its drop-in for serial ports, the user, the folders, and the recipe
// of the .deb and .rpm packages. There is no code in it, only tests: that the
// unit is as closed as it can be, and that a package can be installed, upgraded
// and removed without a trace where that is asked for.
package systemd
