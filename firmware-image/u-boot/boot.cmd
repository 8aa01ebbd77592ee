# Chooses a slot, and boots it. It lies with the public key in the device tree that U-Boot itself runs by, so that whoever can
# trust U-Boot can trust it. Names between at signs are filled in by the recipe. All numbers are hexadecimal.
#
# The boot state has two copies, each with a checksum: the later that is whole counts, and the other is written next, so that a
# power cut while one is written loses nothing. src/gateway/update/boot-state.ts reads and writes them as well.
#   good    the slot that was found healthy last: A or B
#   try     a slot that is new and has not proved itself yet, or none
#   left    attempts that it still has
#   floor   versions below it are not booted
#   failed  the slot that was given up last, or none
#
# The kernel does not test its own ciphers at each start: a root whose hash tree comes out right is proof enough of SHA-256.
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
