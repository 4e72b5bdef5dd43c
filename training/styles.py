"""Tables of styles: tempo, kick, snare and hat as sixteenths of a bar (x a stroke, o a soft one), swing of every second sixteenth."""


def style(low, high, kick, snare, hat, swing=0.0):
    return dict(bpm=(low, high), kick=kick, snare=snare, hat=hat, swing=swing)


# For General MIDI: synthesize.py.
SCORED = {
    "rock": style(95, 150, "x.......x.x.....", "....x.......x...", "x.x.x.x.x.x.x.x."),
    "funk": style(90, 118, "x..x..x...x.....", "....x..o.o..x..o", "xxxxxxxxxxxxxxxx", 0.08),
    "house": style(118, 130, "x...x...x...x...", "....x.......x...", "..x...x...x...x.", 0.04),
    "hiphop": style(75, 100, "x......x..x.....", "....x.......x...", "x.x.x.x.x.x.x.xx", 0.12),
    "trap": style(65, 80, "x.....x...x..x..", "........x.......", "xxxxxxxxxxxxxxxx"),
    "ballad": style(62, 85, "x.......x.......", "....x.......x...", "x.x.x.x.x.x.x.x."),
    "breaks": style(150, 176, "x.........x.....", "....x.......x..o", "x.x.x.x.x.x.x.x.", 0.03),
    "reggae": style(70, 92, "........x.......", "........x.......", "x.x.x.x.x.x.x.x.", 0.1),
    "punk": style(155, 190, "x..xx...x..xx...", "....x.......x...", "x.x.x.x.x.x.x.x."),
    "latin": style(95, 125, "x...x...x...x...", "...x..x....x..x.", "x.xxx.xxx.xxx.xx"),
}

# For synthesizers: electronic.py.
ELECTRONIC = {
    "techno": style(125, 142, "x...x...x...x...", "....x.......x...", "..x...x...x...x."),
    "house": style(116, 130, "x...x...x...x...", "....x.......x...", "..x..xx...x..xx.", 0.06),
    "trance": style(130, 142, "x...x...x...x...", "....x.......x...", "x.x.x.x.x.x.x.x."),
    "electro": style(105, 135, "x..x..x...x..x..", "....x.......x...", "xxxxxxxxxxxxxxxx"),
    "dnb": style(165, 178, "x.........x.....", "....x..o.o..x..o", "x.x.x.xxx.x.x.x.", 0.02),
    "dubstep": style(138, 144, "x.........x.....", "........x.......", "x..xx..xx..xx.x."),
    "trap": style(66, 80, "x.....x..x....x.", "........x.......", "xxxxxxxxxxxxxxxx"),
    "hiphop": style(78, 100, "x..x...x..x.....", "....x.......x...", "x.x.x.x.x.xxx.x.", 0.14),
    "synthwave": style(80, 118, "x...x...x...x...", "....x.......x...", "x.x.x.x.x.x.x.x."),
    "industrial": style(100, 130, "x.x...x.x.x...x.", "....x.......x.x.", "x.x.x.x.x.x.x.x."),
    "breaks": style(120, 150, "x..x......x..x..", "....x..o....x...", "x.x.x.x.x.x.x.x.", 0.05),
    "halftime": style(60, 90, "x.......x.x.....", "....x.......x...", "x.x.x.x.x.x.x.x.", 0.08),
}

# For a band: band.py.
BAND = {
    "rock": style(95, 150, "x.......x.x.....", "....x.......x...", "x.x.x.x.x.x.x.x."),
    "rock-push": style(100, 140, "x..x..x...x...x.", "....x..o....x...", "x.x.x.x.x.x.x.x."),
    "hard-rock": style(85, 125, "x.x.....x.x..x..", "....x.......x...", "x...x...x...x..."),
    "metal": style(110, 190, "xxxxx.xxxxxxx.xx", "....x.......x...", "x...x...x...x..."),
    "punk": style(155, 195, "x..xx...x..xx...", "....x.......x...", "x.x.x.x.x.x.x.x."),
    "halftime": style(120, 150, "x.....x...x.....", "........x.......", "x.x.x.x.x.x.x.x."),
    "pop": style(90, 128, "x...x...x...x...", "....x.......x...", "x.x.x.x.x.x.x.x."),
    "pop-ballad": style(62, 88, "x......xx.......", "....x.......x..o", "x.x.x.x.x.x.x.x."),
    "indie": style(115, 165, "x...x.x.x...x.x.", "....x.......x...", "x.xxx.xxx.xxx.xx"),
    "disco": style(108, 126, "x...x...x...x...", "....x.......x...", "..xx..xx..xx..xx"),
    "funk": style(88, 116, "x..x..x...x..x..", "....x..o.o..x..o", "xxxxxxxxxxxxxxxx", 0.06),
    "funk-linear": style(84, 108, "x.x....x..x.....", ".o..x..o.o..x.oo", "x.xxx.xxx.x.x.xx", 0.08),
    "soul": style(92, 124, "x.x...x.x.x...x.", "x...x...x...x...", "x.x.x.x.x.x.x.x.", 0.05),
    "motown": style(110, 140, "x..xx..xx..xx..x", "x...x...x...x...", "x.x.x.x.x.x.x.x."),
    "hiphop": style(75, 100, "x......x..x.....", "....x..o....x...", "x.x.x.x.x.x.x.xx", 0.14),
    "shuffle": style(80, 130, "x......xx......x", "....x.......x...", "x..xx..xx..xx..x", 0.1),
    "reggae": style(65, 92, "........x.......", "........x..o....", "x.x.x.x.x.x.x.x.", 0.12),
    "ska": style(120, 165, "x...x...x...x...", "....x.......x...", "..x...x...x...x."),
    "latin": style(90, 125, "x..xx..xx..xx..x", "...o..x...x.....", "x.xxx.xxx.xxx.xx"),
    "country": style(95, 130, "x.......x.......", "..o.x.oo..o.x.oo", "x...x...x...x..."),
    "sixties": style(110, 150, "x.....x.x.......", "....x.x.....x...", "x.x.x.x.x.x.x.x."),
    "slow-blues": style(55, 75, "x.......x.....x.", "....x.......x...", "x..xx..xx..xx..x", 0.12),
}
