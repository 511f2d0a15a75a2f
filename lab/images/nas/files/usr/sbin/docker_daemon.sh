#!/bin/sh
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The vendor's kind of control script: docker_daemon.sh start|stop|restart|reload|status
case ${1:-} in
  start) rm -f /run/docker.off ;;
  stop) touch /run/docker.off && kill "$(cat /run/docker.pid)" ;;
  restart) kill "$(cat /run/docker.pid)" ;; # nas-init's loop starts it again
  reload) kill -HUP "$(cat /run/docker.pid)" ;;
  status) docker info >/dev/null 2>&1 ;;
  *) echo "usage: docker_daemon.sh start|stop|restart|reload|status" >&2; exit 2 ;;
esac
