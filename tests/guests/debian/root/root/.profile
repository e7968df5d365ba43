# What a test waits for, and a prompt that nothing else prints.
stty cols 200
export SYSTEMD_COLORS=0 SYSTEMD_PAGER=
PS1='guest# '
echo "GUEST-LOGIN kernel=$(uname -r) cpus=$(nproc) root=$(findmnt -no SOURCE,FSTYPE / | tr -s ' ' ,) state=$(systemctl is-system-running 2>/dev/null)"
