"""One libtorrent peer: libtorrent_peer.py seed|peer TORRENT DIRECTORY ADDRESS

A peer prints "ready" when it could start, waits for a line on standard input, downloads, prints "done" when it has
the whole file, and goes on seeding until it is ended.
The library's defaults, without the ways of finding peers that a tracker makes superfluous, and without uTP, which
would only hold back for TCP.
"""
import sys

import libtorrent as lt

role, torrent, directory, address = sys.argv[1:5]
session = lt.session({
    "listen_interfaces": f"{address}:6881",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "alert_mask": lt.alert.category_t.status_notification,
})


def add(flags):
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(torrent)
    parameters.save_path = directory
    parameters.flags = flags
    session.add_torrent(parameters)


def wait_for(kind):
    while True:
        session.wait_for_alert(60_000)
        for alert in session.pop_alerts():
            if isinstance(alert, kind):
                return


if role == "seed":
    add(lt.torrent_flags.seed_mode)
else:
    print("ready", flush=True)
    sys.stdin.readline()
    add(lt.torrent_flags.update_subscribe)
    wait_for(lt.torrent_finished_alert)
    print("done", flush=True)
while True:
    session.wait_for_alert(60_000)
    session.pop_alerts()
