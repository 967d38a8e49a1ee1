"""The landscape around the network after every epoch, with one scale and the same directions."""

from trained import history, model, train

from losslandscape import animate_film, evaluate_film

film = evaluate_film(model, history, *train, number_of_points=15, seed=0)
animate_film(film, "epochs.gif", fps=2)
