# Chooses a slot and boots it. This script is in U-Boot's own device tree, together with the public key, so it is as trustworthy
# as U-Boot itself. The recipe replaces the names between at signs. All numbers are hexadecimal.
#
# The boot state has two copies, each with a checksum. The later intact copy counts, and the other one is written next, so a
# power cut during a write loses nothing. src/gateway/update/boot-state.ts reads and writes the same copies.
#   good    the slot that was found healthy last: A or B
#   try     a new slot that has not proved healthy yet, or none
#   left    starts that the slot in `try` still has
#   floor   lowest version that is booted
#   failed  the slot that was given up last, or none
#
# cryptomgr.notests: the kernel does not test its own ciphers at each start. A root whose hash tree is right proves SHA-256.
@prepare@
setenv s1 0x0; setenv s2 0x0
if @read@ @state@ @state-1@ 8; then if env import -c @state@ 0x1000 serial; then setenv s1 ${serial}; fi; fi
if @read@ @state@ @state-2@ 8; then if env import -c @state@ 0x1000 serial; then setenv s2 ${serial}; fi; fi
setenv serial 0x0; setenv good A; setenv try none; setenv left 0; setenv floor 0x0; setenv failed none
setenv next @state-1@
if test ${s1} -gt ${s2}; then
  if @read@ @state@ @state-1@ 8; then env import -c @state@ 0x1000 serial good try left floor failed; fi
  setenv next @state-2@
fi
if test ${s2} -gt ${s1}; then
  if @read@ @state@ @state-2@ 8; then env import -c @state@ 0x1000 serial good try left floor failed; fi
fi
setenv save 'setexpr serial ${serial} + 1; setenv serial 0x${serial}; env export -c -s 0x1000 @state@ serial good try left floor failed; @write@ @state@ ${next} 8'
setenv slot ${good}; setenv trying 0
if test ${try} != none; then
  if test ${left} -gt 0; then
    setexpr left ${left} - 1
    setenv slot ${try}; setenv trying 1
  else
    setenv failed ${try}; setenv try none
  fi
  run save
fi
setenv boot_slot 'if test ${slot} = A; then setenv from @boot-a@; else setenv from @boot-b@; fi; @read@ @fit@ ${from} @boot-blocks@; setenv v 0x0; fdt addr @fit@; fdt get value v /configurations/@configuration@ postern,version; echo "postern: slot ${slot}, version ${v}, floor ${floor}, trying ${trying}, left ${left}"; if test ${v} -ge ${floor}; then setenv bootargs "console=@console@ quiet cma=0 panic=3 cryptomgr.notests @kernel-arguments@ postern.slot=${slot} postern.trying=${trying} rauc.slot=${slot} "; bootm @fit@#@configuration@ @fit@#@configuration@ @fdt@; fi'
run boot_slot
echo "postern: slot ${slot} does not boot"
if test ${trying} = 1; then
  setenv failed ${try}; setenv try none
  run save
else
  if test ${slot} = A; then setenv slot B; else setenv slot A; fi
  run boot_slot
  sleep 5
fi
reset
