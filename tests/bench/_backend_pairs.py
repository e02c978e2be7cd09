"""Pairs of sentences that mean nearly the same, of twenty subjects."""

PAIRS = [
    ("A cat is sleeping on the warm window sill.", "The kitten naps in the sunshine."),
    ("Stock markets fell sharply on Monday.", "Investors sold shares as prices dropped."),
    ("She plays the violin in an orchestra.", "The musician practises her string instrument."),
    ("Our rocket reached orbit this morning.", "The satellite was launched into space."),
    ("He bakes bread every Saturday.", "Each weekend he makes loaves of sourdough."),
    ("The train to Berlin is an hour late.", "Our rail journey to the German capital is delayed."),
    ("Doctors advise drinking more water.", "Physicians recommend staying hydrated."),
    ("The river flooded the lower town.", "High water ran through the streets by the stream."),
    ("Children are building a snowman.", "The kids roll big balls of snow in the garden."),
    ("The court rejected the appeal.", "Judges turned down the plea for a new trial."),
    ("A new bridge connects both islands.", "The isles are linked by a crossing over the sea."),
    ("The compiler reports a type error.", "The program does not build: types do not match."),
    ("Bees returned to the old orchard.", "Pollinating insects are back among the apple trees."),
    (
        "The museum opens at ten o'clock.",
        "Visitors can see the exhibition from ten in the morning.",
    ),
    ("He repaired the bicycle's chain.", "The bike's drivetrain was fixed by him."),
    ("The team won the final by two goals.", "They took the cup with a two goal lead."),
    ("Solar panels cover the school's roof.", "The pupils' building makes power from the sun."),
    ("The author signed copies of her novel.", "Readers got their books signed by the writer."),
    ("Strong winds closed the harbour.", "No ships could leave the port because of the storm."),
    ("The soup needs more salt and pepper.", "Season the broth a little better."),
]
