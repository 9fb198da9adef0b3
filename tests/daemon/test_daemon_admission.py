# SPDX-License-Identifier: Apache-2.0
"""Who may open a session: by uid and by group, as the kernel reports them, looked up when the client connects."""

import grp
import os
import pwd
import socket

import pytest

from reefd import admission, manifest
from reefd.admission import Peer
from reefd.wire import Refusal

from .reefd_process import ECHO, NOBODY, run_as

OPEN = """
import libreef, sys, numpy
try:
    with libreef.Client(sys.argv[2], socket=sys.argv[1]) as client:
        client.infer(input=numpy.ones(64, numpy.uint8))
except libreef.AccessDenied as error:
    print("denied", error.code, error)
else:
    print("served")
"""


@pytest.mark.as_root
def test_a_user_that_the_manifest_does_not_name_gets_eacces(start):
    daemon = start(
        {
            "closed.yaml": ECHO.replace("task: echo", "task: closed"),
            "listed.yaml": ECHO.replace("task: echo", "task: listed") + "allow: {users: [nobody]}\n",
            "number.yaml": ECHO.replace("task: echo", "task: number") + f"allow: {{users: [{NOBODY}]}}\n",
            "others.yaml": ECHO.replace("task: echo", "task: others") + "allow: {users: [12345], groups: [daemon]}\n",
        }
    )
    denied = run_as(NOBODY, OPEN, daemon.socket, "closed")
    assert denied.stdout.startswith("denied -13 task closed does not admit user nobody (uid 65534)"), denied
    assert run_as(NOBODY, OPEN, daemon.socket, "others").stdout.startswith("denied -13"), denied
    assert run_as(NOBODY, OPEN, daemon.socket, "listed").stdout == "served\n"
    assert run_as(NOBODY, OPEN, daemon.socket, "number").stdout == "served\n"
    lines = [line for line in daemon.log().splitlines() if "refused:" in line]
    assert len(lines) == 2 and all("uid=65534" in line and "code=EACCES" in line and "pid=" in line for line in lines)
    assert daemon.status()["events"]["refused"] == 2


def admitted(allow: str, uid: int, groups: tuple[int, ...] = ()) -> bool:
    found, _ = manifest.parse((ECHO + allow).encode(), "f")
    try:
        admission.admit(found, Peer(1, uid, groups[0] if groups else uid, frozenset(groups)))
    except Refusal:
        return False
    return True


def test_admission():
    stranger = 54321
    assert admitted("", 0) and admitted("", os.geteuid()) and admitted("allow: {users: []}\n", 0)
    assert not admitted("", stranger)
    assert not admitted("allow: {users: [], groups: []}\n", stranger)
    assert admitted(f"allow: {{users: [{stranger}]}}\n", stranger)
    assert not admitted(f"allow: {{users: ['{stranger}']}}\n", stranger)  # a name of digits is a name
    assert not admitted("allow: {users: [no-such-user-here]}\n", stranger)
    someone = next(user for user in pwd.getpwall() if user.pw_uid not in (0, os.geteuid()))
    assert admitted(f"allow: {{users: [{someone.pw_name}]}}\n", someone.pw_uid)
    group = next(group for group in grp.getgrall() if group.gr_gid != 0)
    assert admitted(f"allow: {{groups: [{group.gr_name}]}}\n", stranger, (7, group.gr_gid))
    assert admitted(f"allow: {{groups: [{group.gr_gid}]}}\n", stranger, (group.gr_gid,))
    assert not admitted(f"allow: {{groups: [{group.gr_gid}]}}\n", stranger, (group.gr_gid + 1,))
    assert not admitted(f"allow: {{groups: [{stranger}]}}\n", stranger, (7,))  # a uid is no gid


def test_the_peer_is_what_the_kernel_says():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        peer = admission.peer_of(ours)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert peer.groups == {os.getegid(), *os.getgroups()}


@pytest.mark.as_root
def test_supplementary_groups_count(start):
    daemon = start({"echo.yaml": ECHO + "allow: {groups: [4242]}\n"})
    drop = f"os.setgroups([4242, 77]); os.setresgid(9, 9, 9); os.setresuid({NOBODY}, {NOBODY}, {NOBODY})"
    code = f"import os; {drop}\n{OPEN}"
    assert run_as(0, code, daemon.socket, "echo").stdout == "served\n"
    assert run_as(0, code.replace("4242", "4243"), daemon.socket, "echo").stdout.startswith("denied -13")
